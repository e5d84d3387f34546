# bash completion for dvdcli(1). Install as /usr/share/bash-completion/completions/dvdcli, or source it.

_dvdcli() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= word flags
    # bash splits `--volumename=NAME` into three words: a value of ours is not completed.
    COMPREPLY=()
    [[ $cur == = || $previous == = ]] && return
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $word in
            mount | unmount | create | remove | path | get | list | version) command=$word ;;
        esac
    done
    flags="--volumedriver --volumename --help"
    case $command in
        mount) flags+=" --volumeopts --explicitcreate" ;;
        create) flags+=" --volumeopts" ;;
    esac
    if [[ -z $command && $cur != -* ]]; then
        flags="mount unmount create remove path get list version help"
    fi
    mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur")
}

complete -F _dvdcli dvdcli
