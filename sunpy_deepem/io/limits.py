"""Limits of ASDF files that a small file could exceed: aliases in their tree and compressed blocks."""

import struct

from sunpy_deepem.utils.fits import MAX_BYTES

__all__ = ["MAX_NODES", "check_asdf_size"]

#: Largest number of nodes of the tree, those of aliases counted each time.
MAX_NODES = 10**6
# Largest size of the text of a tree in bytes.
_MAX_TREE = 2**24
_END_OF_TREE, _BLOCK = b"\n...", b"\xd3BLK"
# After the magic bytes and the size of the rest: flags, compression, allocated, used and data size.
_BLOCK_HEADER = struct.Struct(">I4sQQQ")


def check_asdf_size(path):
    """
    Raise `ValueError` if an ASDF file becomes much larger when it is read.

    Parameters
    ----------
    path : `pathlib.Path`
    """
    with path.open("rb") as file:
        start = file.read(_MAX_TREE)
        end = start.find(_END_OF_TREE)
        if end < 0:
            msg = f"its tree is incomplete or has more than {_MAX_TREE} bytes"
            raise ValueError(msg)
        _check_tree(start[:end])
        first = start.find(_BLOCK, end)
        if first >= 0 and (n_bytes := _decompressed(file, first)) > MAX_BYTES:
            msg = (
                f"its arrays have {n_bytes / 2**30:.1f} GiB after decompression, the limit is {MAX_BYTES / 2**30:g} GiB"
            )
            raise ValueError(msg)


def _check_tree(text):
    import yaml

    root = yaml.compose(text.decode("utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    sizes = {}
    # Without recursion: a node is counted after its children.
    pending = [root] if root is not None else []
    while pending:
        node = pending[-1]
        missing = [child for child in _children(node) if id(child) not in sizes]
        if missing and len(pending) < MAX_NODES and not any(child is node for child in missing):
            pending += missing
            continue
        sizes[id(node)] = 1 + sum(sizes.get(id(child), 1) for child in _children(node))
        pending.pop()
        if sizes[id(node)] > MAX_NODES:
            msg = f"its tree has more than {MAX_NODES} nodes, as aliases repeat them"
            raise ValueError(msg)


def _children(node):
    import yaml

    if isinstance(node, yaml.MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _decompressed(file, position):
    """Return the size of all blocks from ``position`` on after decompression."""
    total = 0
    while True:
        file.seek(position)
        magic, size = file.read(4), file.read(2)
        header = file.read(_BLOCK_HEADER.size)
        if magic != _BLOCK or len(header) < _BLOCK_HEADER.size:
            return total
        _, compression, allocated, _, data = _BLOCK_HEADER.unpack(header)
        total += data if compression.strip(b"\0") else 0
        position += 6 + int.from_bytes(size, "big") + allocated
