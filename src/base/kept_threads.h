// For a daemon: the threads of run_parallel() (base/sync.h) stay for the next call, since to make one and to
// end it takes longer than many a piece of work.
#pragma once

namespace dvdi {

// From here on they do, and where none can be made the pieces run one after the other. Not for a program that
// starts tasks by itself: it must have one thread only when it does.
void keep_threads_of_run_parallel();

}  // namespace dvdi
