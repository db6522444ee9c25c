"""What belongs together: how images are loaded, the expert's words, networks, and the settings for them.

A task is a file that nobody else has to know: it registers its class by one
line, or by an entry point of the group ``lvlmva_lite.tasks``.
"""

from lvlmva_lite.registry import TASKS
from lvlmva_lite.tasks.decoy_mnist import DecoyMNIST
from lvlmva_lite.tasks.folder import Folder
from lvlmva_lite.tasks.knee import Knee
from lvlmva_lite.tasks.skin import Skin
from lvlmva_lite.tasks.task import Network, Task, options_of

get, names = TASKS.get, TASKS.names

__all__ = ["DecoyMNIST", "Folder", "Knee", "Network", "Skin", "Task", "get", "names", "options_of"]
