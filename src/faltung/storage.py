"""What tensors that share memory have in common: the version counter and who else may write."""

from __future__ import annotations


class Storage:
    """Shared by a tensor, its views and its detached aliases. The bytes themselves belong to the NumPy arrays.

    The defaults stand on the class, so that making one costs as little as `object()`.
    """

    version: int = 0  # in-place writes so far; autograd compares it with the version at saving
    aliased: bool = False  # another tensor or array has been made on this memory
    exported: bool = False  # NumPy (or another library) may write without our knowledge
    inference: bool = False  # made in inference mode: no versions, never saved for backward
    origin: Storage | None = None  # the storage that `tensor.data` was taken from
    foreign_writes: int = 0  # writes made through `tensor.data`, which autograd must not see

    def bump(self) -> None:
        """Note one in-place write."""
        self.version += 1
        if self.origin is not None:
            self.origin.foreign_writes += 1

    def content_key(self) -> int | None:
        """A number that changes with every write to the memory; None where writes can't be noticed."""
        root = self.origin or self
        return None if root.exported else root.version + root.foreign_writes

    def export(self) -> None:
        """Note that foreign code now holds this memory."""
        self.aliased = True
        (self.origin or self).exported = True

    def detached_writer(self) -> Storage:
        """The storage of `tensor.data`: the same memory with a version counter of its own."""
        self.aliased = True
        fresh = Storage()
        fresh.aliased = True
        fresh.origin = self.origin or self
        return fresh


class InferenceStorage(Storage):
    """The storage of tensors made in inference mode."""

    inference = True

    def detached_writer(self) -> Storage:
        """Inference tensors keep no versions: the alias shares this storage."""
        self.aliased = True
        return self
