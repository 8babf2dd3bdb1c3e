from array import array

def count_had(
    classes: array[int],
    eligible: bytes,
    nodes: int,
    owners: array[int],
    sizes: array[int],
    had: array[int],
) -> None: ...
def place(
    key_hashes: array[int],
    classes: array[int],
    sizes: array[int],
    node_hashes: array[int],
    weights: array[int],
    counts: array[int],
    owners: array[int],
) -> None: ...
