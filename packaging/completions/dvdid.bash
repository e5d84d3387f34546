# bash completion for dvdid(8). Install as /usr/share/bash-completion/completions/dvdid, or source it.

_dvdid() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    # bash splits `--config=FILE` into three words.
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD - 2]}
    [[ $cur == = ]] && cur="" previous=${COMP_WORDS[COMP_CWORD - 1]}
    COMPREPLY=()
    case $previous in
        --state-dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur"); compopt -o filenames 2>/dev/null ;;
        --config | --socket) mapfile -t COMPREPLY < <(compgen -f -- "$cur"); compopt -o filenames 2>/dev/null ;;
        --help | --version) ;;
        *) mapfile -t COMPREPLY < <(compgen -W "--state-dir --socket --config --verbose --help --version" -- "$cur") ;;
    esac
}

complete -F _dvdid dvdid
