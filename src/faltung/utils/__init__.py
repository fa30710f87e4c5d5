"""Helpers around training: data."""

from faltung.utils import data as data

__all__ = ["data"]
