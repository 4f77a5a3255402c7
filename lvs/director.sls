# A director: the IPVS table first, then keepalived, which brings the VIPs that need it.
{%- from "lvs/map.jinja" import view, names with context %}

{%- if view.problems %}

include:
  - lvs.invalid

{%- else %}

lvs-director-packages:
  pkg.installed:
    - pkgs: {{ names.packages | json }}

lvs-director-modules:
  kmod.present:
    - persist: True
    - mods:
      - ip_vs
{%- for scheduler in view.schedulers %}
      - ip_vs_{{ scheduler }}
{%- endfor %}

lvs-ipvs-table:
  ipvs.managed:
    - require:
      - kmod: lvs-director-modules

lvs-keepalived-config:
  keepalived.config:
    - name: {{ names.config }}
    - require:
      - pkg: lvs-director-packages
      - ipvs: lvs-ipvs-table

# Never restarted for a change: that would take the VIPs down and lose what keepalived knows.
lvs-keepalived-service:
  service.running:
    - name: {{ names.service }}
    - enable: True
    - reload: True
    - sig: {{ names.service }}
    - watch:
      - keepalived: lvs-keepalived-config

{%- endif %}
