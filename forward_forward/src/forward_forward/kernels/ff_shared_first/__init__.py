from .reference import ff_shared_first_fwd as ff_shared_first_fwd
from .reference import ff_shared_first_wgrad as ff_shared_first_wgrad
