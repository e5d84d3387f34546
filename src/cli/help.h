// The part of each command's --help that is written by hand: examples, and what its exit code says.
#pragma once

#include <string_view>

namespace dvdi::cli::help {

inline constexpr std::string_view dvdi =
    R"(Examples:
  dvdi run --volume local/data:data -- sh -c 'date >> data/log; cat data/log'
  dvdi volume ls
  dvdi events --follow
  dvdi doctor

Exit code: 0 done, 1 failed, 2 usage; `dvdi run` has its own, see `dvdi run --help`.
Options of dvdi may also follow the command. `dvdi COMMAND --help` has examples.)";

inline constexpr std::string_view run =
    R"(Examples:
  dvdi run app.json                                  # a Marathon app with its own command
  dvdi run volumes.json -- sh -c 'ls data'           # the JSON of mesos-execute --volumes
  dvdi run --volume local/a:data --volume local/b:/mnt/b:ro -- sh -c 'cp /mnt/b/x data/'
  dvdi run --volume local/c:data,type=image,size=1G --user nobody -- df -h data
  dvdi run --volume local/a:data --label team=web -- sh -c 'date >> data/log'
  DVDI_VOLUME_NAME=v DVDI_VOLUME_DRIVER=rc DVDI_VOLUME_CONTAINERPATH=/tmp/v dvdi run -- ls /tmp/v

Volumes come from FILE, --volume and DVDI_VOLUME_* together. A relative PATH lies in the sandbox.

Exit code: the task's own, 128+n if signal n ended it; 127 its program is not there; 126 it cannot
be run; 125 dvdi itself failed before the task, or the command line is wrong; 128+n if signal n
interrupted dvdi before the task.)";

inline constexpr std::string_view volume =
    R"(Examples:
  dvdi volume ls
  dvdi volume inspect local/data
  dvdi volume create local/data --option type=image --option size=1G
  dvdi volume rm local/data
  dvdi volume release local/data)";

inline constexpr std::string_view volume_ls =
    R"(Volumes of this node and, as far as drivers list them, those that are not mounted here.

Examples:
  dvdi volume ls
  dvdi volume ls --known                             # quick: no driver is asked
  dvdi volume ls --format json | jq '.volumes[] | select(.owed != null)')";

inline constexpr std::string_view volume_inspect =
    R"(Examples:
  dvdi volume inspect local/data
  dvdi volume inspect rc/a rc/b --format json)";

inline constexpr std::string_view volume_create =
    R"(Examples:
  dvdi volume create local/data
  dvdi volume create local/data -o type=image -o size=1G -o fstype=xfs
  dvdi volume create rc/backup -o remote=store:backup)";

inline constexpr std::string_view volume_rm =
    R"(Refused while a container uses the volume, it is mounted, or an unmount is owed.

Examples:
  dvdi volume rm local/data
  dvdi volume rm rc/a rc/b)";

inline constexpr std::string_view volume_release =
    R"(Says what is known and what it will do, asks, and makes one attempt at once, whatever the wait
says; a parked debt is tried again from the first attempt on. Also takes away a mount that nobody
refers to. Refused while a container uses the volume. Exit code 1: something of it is left.

Examples:
  dvdi volume release rc/a
  dvdi volume release rc/a --dry-run
  dvdi volume release rc/a rc/b --yes --format json)";

inline constexpr std::string_view ps =
    R"(Examples:
  dvdi ps
  dvdi ps --all --format json)";

inline constexpr std::string_view inspect =
    R"(Examples:
  dvdi inspect 4f1c                                  # the beginning of an id, if only one has it
  dvdi inspect 4f1c --format json)";

inline constexpr std::string_view events =
    R"(Without --since all recorded events are shown, oldest first. With --format json each line is one
CloudEvent, exactly as it is stored.

Examples:
  dvdi events --since 1h
  dvdi events --since 1200 --format json             # those after number 1200
  dvdi events --follow --format json | jq .type
  dvdi events verify)";

inline constexpr std::string_view events_verify =
    R"(Reads every event, checks the sequence numbers and the chain of hashes. Exit code 1: not intact.

Examples:
  dvdi events verify
  dvdi events verify --against audit                 # also: is it what that sink has?
  dvdi events verify --format json | jq -r .head     # keep it elsewhere, compare it later)";

inline constexpr std::string_view usage =
    R"(Three figures, never added up: how long containers referred to a volume, how long it was mounted
here, how long it existed; and GiB-hours of each where the size is known. With prices, what it costs,
exact to the last digit. docs/usage.md says what is counted, and how to write the prices.

Examples:
  dvdi usage
  dvdi usage --by principal --since 7d
  dvdi usage --by label:team,day --since 2026-11-01 --until 2026-12-01 --format json
  dvdi usage --by role --since 24h --prices /usr/share/doc/dvdi/examples/prices.toml --format csv)";

inline constexpr std::string_view sink =
    R"(Sinks are in the configuration: [sink.NAME]. Only dvdid carries events to them.

Examples:
  dvdi sink ls
  dvdi sink test audit
  dvdi sink replay audit --from 1200)";

inline constexpr std::string_view sink_ls =
    R"(STATE: delivering, idle, waiting (after a failure), paused; off where no daemon runs. BEHIND: events that
it has not got yet.

Examples:
  dvdi sink ls
  dvdi sink ls --format json | jq '.sinks[] | select(.behind > 1000)')";

inline constexpr std::string_view sink_test =
    R"(Delivers no event. Needs the daemon. Exit code 1: it would not take events; the message says why.

Examples:
  dvdi sink test audit)";

inline constexpr std::string_view sink_pause =
    R"(Holds across restarts. Its events are kept, as for a sink that is down.

Examples:
  dvdi sink pause audit)";

inline constexpr std::string_view sink_resume =
    R"(Examples:
  dvdi sink resume audit)";

inline constexpr std::string_view sink_replay =
    R"(From that event on all are sent once more, with the same ids and bytes. Refused where that event is not
here any more, or was not delivered yet.

Examples:
  dvdi sink replay audit --from 1
  dvdi sink replay audit --from 1200)";

inline constexpr std::string_view policy =
    R"(Examples:
  dvdi policy check /etc/dvdi/policy.toml app.json)";

inline constexpr std::string_view policy_check =
    R"(Looks at no state and changes nothing; FILE need not be the policy in use. DVDI_VOLUME_* count, as for
`dvdi run`. Exit code: 0 allowed, 1 denied, 2 usage, also where FILE or REQUEST cannot be read.

Examples:
  dvdi policy check /etc/dvdi/policy.toml app.json
  dvdi policy check policy.toml app.json --as alice
  dvdi policy check policy.toml volumes.json --role web --principal team-web --format json)";

inline constexpr std::string_view doctor =
    R"(Changes nothing. Exit code 1 if there is a problem; warnings do not count.

Examples:
  dvdi doctor
  dvdi doctor --format json | jq '.findings[] | select(.level == "problem")')";

inline constexpr std::string_view config =
    R"(Examples:
  dvdi config check
  dvdi config check ./dvdi.toml)";

inline constexpr std::string_view config_check =
    R"(Reads the configuration as dvdi and dvdid do, and the policy file that it names. Changes nothing. Exit code 1: it
is wrong; the message names file, line and key.

Examples:
  dvdi config check
  dvdi config check ./dvdi.toml
  dvdi config check --format json | jq -r .settings.state_dir)";

inline constexpr std::string_view version =
    R"(Examples:
  dvdi version
  dvdi version --format json)";

}  // namespace dvdi::cli::help
