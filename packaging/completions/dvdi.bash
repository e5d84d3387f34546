# bash completion for dvdi(1). Install as /usr/share/bash-completion/completions/dvdi, or source it.
# Volumes and containers come from `dvdi ... --format json`, which needs root; without it nothing is offered.

_dvdi_words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }

_dvdi_files() {
    mapfile -t COMPREPLY < <(compgen "$1" -- "$cur")
    compopt -o filenames 2>/dev/null
}

# The options that lead to the state, as they were given.
_dvdi_state_options() {
    state_options=()
    local i
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            --state-dir | --config | --socket) state_options+=("${words[i]}" "${words[i + 1]}") ;;
            --) break ;;
        esac
    done
}

# Names come from outside: only those that are plain words are offered, so that none of them is expanded by the shell.
_dvdi_volumes() {
    local state_options
    _dvdi_state_options
    _dvdi_words "$(dvdi "${state_options[@]}" volume ls --known --format table 2>/dev/null |
        awk 'NF == 0 { exit } NR > 1 && ($1 "/" $2) ~ /^[A-Za-z0-9_.\/-]+$/ { print $1 "/" $2 }')"
}

_dvdi_containers() {
    local state_options
    _dvdi_state_options
    _dvdi_words "$(dvdi "${state_options[@]}" ps --all --format table 2>/dev/null |
        awk 'NR > 1 && $2 ~ /^[A-Za-z0-9_.-]+$/ { print $2 }')"
}

_dvdi_sinks() {
    local state_options
    _dvdi_state_options
    _dvdi_words "$(dvdi "${state_options[@]}" sink ls --format table 2>/dev/null |
        awk 'NF == 0 { exit } NR > 1 && $1 ~ /^[A-Za-z0-9_-]+$/ { print $1 }')"
}

_dvdi() {
    local cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local words=() cword word
    # bash splits `--format=json` into three words; here an option and its value are two.
    for word in "${COMP_WORDS[@]:0:COMP_CWORD}"; do [[ $word == = ]] || words+=("$word"); done
    [[ $cur == = ]] && cur=""
    cword=${#words[@]}
    previous=${words[cword - 1]}
    words+=("$cur")
    local global="--state-dir --config --socket --format --help"
    local command="" sub="" i
    COMPREPLY=()

    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
            --)
                # What follows is the task's: its program, then its files.
                if ((cword == i + 1)); then
                    _dvdi_files -c
                else
                    _dvdi_files -f
                fi
                return
                ;;
            --state-dir | --config | --socket | --format | --volume | -V | --user | -u | --rootfs | --directory | --id | --pid | \
                --label | -l | --env | -e | --timeout | --since | --until | --by | --prices | --option | -o | --as | --role | --principal | --from)
                ((i++))
                ;;
            -*) ;;
            *)
                if [[ -z $command ]]; then
                    command=${words[i]}
                elif [[ -z $sub ]]; then
                    sub=${words[i]}
                fi
                ;;
        esac
    done

    case $previous in
        --format) _dvdi_words "table json$([[ $command == usage ]] && echo " csv")"; return ;;
        --by) _dvdi_words "volume driver type owner framework role principal user container day hour"; return ;;
        --pid) _dvdi_words "host"; return ;;
        --user | -u | --as) mapfile -t COMPREPLY < <(compgen -u -- "$cur"); return ;;
        --state-dir | --rootfs | --directory) _dvdi_files -d; return ;;
        --config | --socket | --prices) _dvdi_files -f; return ;;
        --volume | -V | --id | --label | -l | --env | -e | --timeout | --since | --until | --option | -o | --role | --principal | --from) return ;;
    esac

    case $command in
        "")
            _dvdi_words "run volume ps inspect events usage sink policy config doctor version $global --version"
            ;;
        run)
            if [[ $cur == -* || -n $sub ]]; then
                _dvdi_words "--volume --user --rootfs --directory --id --label --pid --env --inherit-env --timeout --verbose -- $global"
            else
                _dvdi_files -f
            fi
            ;;
        volume)
            case $sub in
                "") _dvdi_words "ls inspect create rm release $global" ;;
                ls) _dvdi_words "--known $global" ;;
                create) _dvdi_words "--option $global" ;;
                release)
                    if [[ $cur == -* ]]; then _dvdi_words "--yes --dry-run $global"; else _dvdi_volumes; fi
                    ;;
                inspect | rm)
                    if [[ $cur == -* ]]; then _dvdi_words "$global"; else _dvdi_volumes; fi
                    ;;
            esac
            ;;
        ps) _dvdi_words "--all $global" ;;
        inspect)
            if [[ $cur == -* ]]; then _dvdi_words "$global"; else _dvdi_containers; fi
            ;;
        events)
            if [[ -z $sub ]]; then _dvdi_words "verify --follow --since $global"; else _dvdi_words "--against $global"; fi
            ;;
        usage) _dvdi_words "--by --since --until --prices $global" ;;
        sink)
            case $sub in
                "") _dvdi_words "ls test pause resume replay $global" ;;
                ls) _dvdi_words "$global" ;;
                test | pause | resume)
                    if [[ $cur == -* ]]; then _dvdi_words "$global"; else _dvdi_sinks; fi
                    ;;
                replay)
                    if [[ $cur == -* ]]; then _dvdi_words "--from $global"; else _dvdi_sinks; fi
                    ;;
            esac
            ;;
        policy)
            if [[ -z $sub ]]; then
                _dvdi_words "check $global"
            elif [[ $cur == -* ]]; then
                _dvdi_words "--as --role --principal $global"
            else
                _dvdi_files -f
            fi
            ;;
        config)
            case $sub in
                "") _dvdi_words "check $global" ;;
                check) if [[ $cur == -* ]]; then _dvdi_words "$global"; else _dvdi_files -f; fi ;;
            esac
            ;;
        doctor | version) _dvdi_words "$global" ;;
    esac
}

complete -F _dvdi dvdi
