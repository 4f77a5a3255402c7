# The master's part: which events its reactor answers. Apply it to the minion on the master.
{%- set conf_dir = salt["config.get"]("lvs_master_conf_dir", "/etc/salt") %}
{%- set main = conf_dir ~ "/master" %}
{%- set text = salt["file.read"](main) if salt["file.file_exists"](main) else "" %}
{%- if ((text | load_yaml) or {}).get("reactor") %}

# Salt adds up what the files of master.d say, but they all take the place of what the main file says.
lvs-master-reactor-problem:
  test.fail_without_changes:
    # The sentence is the name: with test=True, this state tells nothing else.
    - name: {{ (main ~ " has a `reactor:` of its own, which " ~ conf_dir ~ "/master.d/saltext-lvs.conf would replace: "
        ~ "move it into a file of its own in " ~ conf_dir ~ "/master.d, and apply this again.") | json }}
{%- else %}

lvs-master-config:
  file.managed:
    - name: {{ conf_dir }}/master.d/saltext-lvs.conf
    - source: salt://lvs/files/master.conf
    - mode: '0644'
    - makedirs: True
{%- endif %}
