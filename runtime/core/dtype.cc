#include "runtime/core/dtype.h"

#include <array>

namespace trireme {
namespace {

struct DTypeInfo {
  std::string_view name;
  int64_t size;
  bool floating;
};

// In the order of the enumeration.
constexpr std::array<DTypeInfo, 7> kInfos = {{
    {"fp32", 4, true},
    {"bf16", 2, true},
    {"fp64", 8, true},
    {"int32", 4, false},
    {"int64", 8, false},
    {"bool", 1, false},
    {"uint8", 1, false},
}};

const DTypeInfo& InfoOf(DType dtype) {
  return kInfos[static_cast<size_t>(dtype)];
}

}  // namespace

int64_t DTypeSize(DType dtype) { return InfoOf(dtype).size; }

std::string_view DTypeName(DType dtype) { return InfoOf(dtype).name; }

std::optional<DType> DTypeFromName(std::string_view name) {
  for (size_t i = 0; i < kInfos.size(); ++i) {
    if (kInfos[i].name == name) return static_cast<DType>(i);
  }
  return std::nullopt;
}

bool IsFloating(DType dtype) { return InfoOf(dtype).floating; }

std::ostream& operator<<(std::ostream& out, DType dtype) {
  return out << DTypeName(dtype);
}

}  // namespace trireme
