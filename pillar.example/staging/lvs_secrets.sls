lvs_secrets:
  vrrp_instances:
    VirtIP_20: {auth_pass: STAGING}
