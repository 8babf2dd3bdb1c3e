from array import array

def settle(
    eligible: bytes,
    sizes: array[int],
    order: array[int],
    had: array[int],
    weights: array[int],
    lows: array[int],
    highs: array[int],
    caps: array[int],
    ranks: array[int],
    counts: array[int],
) -> None: ...
