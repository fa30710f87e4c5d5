"""The old place of `faltung.hub.load_state_dict_from_url`."""

from faltung.hub import load_state_dict_from_url as load_url

__all__ = ["load_url"]
