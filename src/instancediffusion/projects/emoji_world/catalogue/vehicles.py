"""What moves people and goods."""

from ..colours import BRIGHT, MANY
from ..kinds import ObjectKind as Kind

_CORE = (
    Kind("car", "automobile", (), ("shiny",), "red", MANY, (345, 15)),
    Kind("bus", "bus"),
    Kind("truck", "delivery-truck", ("delivery truck",), (), facing="left"),
    Kind("tractor", "tractor", (), ("green",), facing="left"),
    Kind("motorcycle", "motorcycle", ("motorbike",), (), "red", BRIGHT, (345, 15), "left"),
    Kind("scooter", "motor-scooter", (), (), "yellow", BRIGHT, (37, 60), "left", repaint=True),
    Kind("bicycle", "bicycle", ("bike",)),
    Kind("train", "locomotive", ("steam train",), (), facing="left"),
    Kind("airplane", "airplane", ("plane",), ("flying",), stands=False),
    Kind("helicopter", "helicopter", (), ("flying",), facing="left", stands=False),
    Kind("rocket", "rocket", (), ("flying",), stands=False, specks=False),
    Kind("sailboat", "sailboat"),
    Kind("ship", "ship", (), ("big",)),
)

_MORE = (
    Kind("taxi", "taxi", ("cab",), ("yellow",)),
    Kind("police car", "police-car"),
    Kind("ambulance", "ambulance", (), (), facing="left"),
    Kind("fire truck", "fire-engine", ("fire engine",), ("red",), facing="left"),
    Kind("racing car", "racing-car", (), ("red",)),
    Kind("kick scooter", "kick-scooter"),
    Kind("skateboard", "skateboard"),
    Kind("roller skate", "roller-skate"),
    Kind("canoe", "canoe"),
    Kind("flying saucer", "flying-saucer", ("ufo",), (), stands=False, specks=False),
    Kind("parachute", "parachute", (), (), stands=False),
    Kind("anchor", "anchor"),
)

VEHICLES = (*_CORE, *(kind.outside_core() for kind in _MORE))
