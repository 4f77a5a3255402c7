"""Failovers by the dozen, with two real directors: what the master hears of each is compared with
what keepalived did.
"""
