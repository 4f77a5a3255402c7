# A minion that is no director any more: what was written beside systemd-networkd's files goes, and
# what would bring the table back at a boot. The table and keepalived are as somebody left them.
lvs-former-director-vips:
  keepalived.vips_kept

lvs-former-director-at-boot:
  ipvs.at_boot
