// What most sources include of others' headers. A source includes what it uses
// nevertheless: OpenMP's are compiled without this.

#ifndef TRIREME_THIRD_PARTY_PRECOMPILED_STANDARD_HEADERS_H_
#define TRIREME_THIRD_PARTY_PRECOMPILED_STANDARD_HEADERS_H_

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

#endif  // TRIREME_THIRD_PARTY_PRECOMPILED_STANDARD_HEADERS_H_
