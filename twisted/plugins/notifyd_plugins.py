"""Makes ``twistd notify-agent`` and ``twistd notify-hub`` known to Twisted."""

from twisted.application.service import ServiceMaker

notify_agent = ServiceMaker(
    "notify-agent", "notifyd.agent.service", "Reads serial devices and pushes their events to a hub.", "notify-agent"
)
notify_hub = ServiceMaker(
    "notify-hub", "notifyd.hub.service", "Stores events, decides their priority and fans them out.", "notify-hub"
)
