"""The agent: from serial ports through a durable spool to the hub."""
