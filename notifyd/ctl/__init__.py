"""notifyctl: the command line for people."""
