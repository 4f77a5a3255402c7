# A real server: quiet on ARP first, then the VIP.
{%- from "lvs/map.jinja" import view, names with context %}
{%- from "lvs/modules.jinja" import kernel_modules %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

include:
  - lvs.minion

{%- if view.serves %}

{%- for line in view.sysctls.realserver %}

{{ line.name }}:
  sysctl.present:
    - value: {{ line.value }}
    - config: {{ names.sysctl_dir }}/60-saltext-lvs-realserver.conf
    - require_in:
      - dummy: lvs-vip-interface
{%- endfor %}

{%- if view.modules.realserver %}
{{ kernel_modules(view, "realserver") }}
{%- endif %}

lvs-vip-interface:
  dummy.present:
    - name: {{ view.vip_interface }}
    - require:
      - id: lvs-pyroute2
{%- if view.modules.realserver %}
      - id: lvs-realserver-modules
{%- endif %}

# The minion's own pillar is as old as its last refresh, and the beacon watches what that one asks for.
lvs-vip-watch:
  module.run:
    - lvs.refresh_pillar:
    - onchanges:
      - dummy: lvs-vip-interface

{%- endif %}
{%- for interface in view.former_interfaces %}

# The VIPs are on another interface now, or no virtual server that this machine serves needs one here any more.
lvs-former-vip-interface-{{ interface }}:
  dummy.absent:
    - name: {{ interface }}
    - require:
      - id: lvs-pyroute2
{%- if view.serves %}
      - dummy: lvs-vip-interface
{%- endif %}

{%- endfor %}
{%- endif %}
