# A real server: quiet on ARP first, then the VIP.
{%- from "lvs/map.jinja" import view, names with context %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- elif view.vips %}

{%- for line in view.sysctls.realserver %}

{{ line.name }}:
  sysctl.present:
    - value: {{ line.value }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-realserver.conf
    - require_in:
      - dummy: lvs-vip-interface
{%- endfor %}

lvs-dummy-module:
  cmd.run:
    - name: modprobe dummy
    - creates: /sys/module/dummy

lvs-dummy-module-at-boot:
  file.managed:
    - name: /etc/modules-load.d/saltext-lvs-realserver.conf
    - contents:
      - '# Salt writes this file (state lvs.realserver).'
      - dummy
    - mode: '0644'
    - makedirs: True

lvs-vip-interface:
  dummy.present:
    - name: {{ view.vip_interface }}
    - require:
      - cmd: lvs-dummy-module
      - module: lvs-pyroute2

{%- endif %}
