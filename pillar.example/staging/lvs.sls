# The same service on a smaller scale: one director, other addresses, unequal weights.
lvs:
  name: staging
  directors: [staging-lb1]
  real_servers:
    staging-rs1: 10.10.20.41
    staging-rs2: 10.10.20.42
  vrrp_instances:
    VirtIP_20:
      interface: eth0
      virtual_router_id: 20
      virtual_ipaddress: [10.10.20.10]
  virtual_servers:
    web:
      address: 10.10.20.10
      port: 80
      persistence: 5
      check:
        types: [path, http]
        interval: 2
        connect_timeout: 1
        http: {path: /health}
      real_servers:
        staging-rs1: {weight: 10}
        staging-rs2: {weight: 30}
