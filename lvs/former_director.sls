# A minion that is no director any more: what was written beside systemd-networkd's files goes.
lvs-former-director-vips:
  keepalived.vips_kept
