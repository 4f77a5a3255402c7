# The VRRP passwords, 8 characters at most, in a file of their own: top.sls gives it to directors only.
lvs_secrets:
  vrrp_instances:
    VirtIP_30: {auth_pass: MY_PASS}
