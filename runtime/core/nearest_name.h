// The valid name that a mistyped one most likely meant, for error messages of
// the command line and of configuration files.

#ifndef TRIREME_RUNTIME_CORE_NEAREST_NAME_H_
#define TRIREME_RUNTIME_CORE_NEAREST_NAME_H_

#include <string>
#include <string_view>
#include <vector>

namespace trireme {

// The name in `valid` with the fewest edits (insert, delete, replace, swap of
// neighbours; upper and lower case are alike) from `found`; the first of
// equals. Empty if none is near: more than a third of the longer name differs.
std::string NearestName(std::string_view found,
                        const std::vector<std::string>& valid);

}  // namespace trireme

#endif  // TRIREME_RUNTIME_CORE_NEAREST_NAME_H_
