// Bugs on purpose: the simulator's tests build it with one of them and see that it is found
// (tests/simulation/CMakeLists.txt). No program has any.
#pragma once

#ifndef DVDI_PLANT_BUG
#define DVDI_PLANT_BUG 0
#endif

namespace dvdi {

constexpr int planted_bug =
    DVDI_PLANT_BUG;  // of internal linkage: it differs from source file to source file

}  // namespace dvdi
