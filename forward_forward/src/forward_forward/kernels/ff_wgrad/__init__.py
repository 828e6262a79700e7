from .reference import ff_wgrad as ff_wgrad
