from .slots import Slots

class Terms:
    slots: Slots
