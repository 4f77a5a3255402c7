# The lab's shell: a plain bash, but for its prompt and its history, which belongs to the lab.
PS1='lab# '
unset HISTFILE
