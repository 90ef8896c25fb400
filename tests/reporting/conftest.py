"""A small program whose evaluations are made by the real stage code from planted answers."""

from evaluation_fixtures import planted, world

__all__ = ["planted", "world"]
