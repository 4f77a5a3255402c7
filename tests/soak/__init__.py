"""Failovers and incidents by the dozen, with real directors: what the master tells is compared with
what happened.
"""
