"""The exact landscape of g(Y) = sup over critics (sections 2 to 4 of the specification).

games       the losses, and a loss of one's own
states      which real point each fake lies on
values      g of a state in closed form; `concave`, `allpairs`, `programme`, `wasserstein` solve what has none
inner       optimal critics, and a numerical maximum beside the closed forms
topology    strict minima, reachability and barriers over all states
paths       descending paths, merge trees
lipschitz   g on the line for Lipschitz critics, for pictures with width
"""

from rpgan_landscape.landscape.errors import LandscapeError
from rpgan_landscape.landscape.games import ALIASES, GAMES, Game
from rpgan_landscape.landscape.inner import Critic, inner_max_numeric, inner_solution
from rpgan_landscape.landscape.lipschitz import lipschitz_values
from rpgan_landscape.landscape.paths import MergeTree, barrier_tree, descend
from rpgan_landscape.landscape.states import occupancy, pattern
from rpgan_landscape.landscape.topology import Landscape, analyse
from rpgan_landscape.landscape.values import global_minimum, value, values, xi

__all__ = [
    "ALIASES",
    "GAMES",
    "Critic",
    "Game",
    "Landscape",
    "LandscapeError",
    "MergeTree",
    "analyse",
    "barrier_tree",
    "descend",
    "global_minimum",
    "inner_max_numeric",
    "inner_solution",
    "lipschitz_values",
    "occupancy",
    "pattern",
    "value",
    "values",
    "xi",
]
