"""What the lab raises."""


class LabError(Exception):
    """Something about the lab itself went wrong; the text is for the person who runs it."""
