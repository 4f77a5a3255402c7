# Two directors, two real servers, one web service on 10.10.10.10:80.
lvs:
  name: prod
  directors:
    lb1: {router_id: LVS_PRI, state: MASTER, priority: 150}
    lb2: {router_id: LVS_SEC, state: BACKUP, priority: 50}
  real_servers:
    rs1: {address: 10.10.10.41}
    rs2: {address: 10.10.10.42}
  hypervisors:
    kvm1: {bridge: virbr0, interface: eth1}
  vrrp_instances:
    VirtIP_10:
      interface: eth0
      virtual_router_id: 10
      advert_int: 3
      virtual_ipaddress: [10.10.10.10]
  sync_daemon: {interface: eth0, vrrp_instance: VirtIP_10, syncid: 10}
  alerts:
    notification_email: [noc@example.com]
    notification_email_from: lvs@example.com
    smtp_server: localhost
  virtual_servers:
    web:
      address: 10.10.10.10
      port: 80
      protocol: tcp
      scheduler: wlc
      forward: direct
      persistence: 5
      real_servers:
        rs1: {weight: 50}
        rs2: {weight: 50}
