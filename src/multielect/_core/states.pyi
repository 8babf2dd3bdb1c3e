from .slots import Slots

class States:
    slots: Slots
