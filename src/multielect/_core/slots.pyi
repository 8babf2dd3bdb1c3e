class Slots:
    count: int
