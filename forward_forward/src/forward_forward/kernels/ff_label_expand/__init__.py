from .reference import ff_label_expand as ff_label_expand
