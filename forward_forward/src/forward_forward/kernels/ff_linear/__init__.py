from .reference import ff_linear_fwd as ff_linear_fwd
