#include "scheduler/explain/query.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "google/protobuf/descriptor.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::Status FieldError(std::string_view field, std::string_view value,
                        std::string_view expected) {
  return InvalidArgument("--why: found {}={}, expected {}", field, value,
                         expected);
}

// Sets the value of an enumeration's name, which is not the unspecified one.
template <typename Enum>
absl::Status SetNamed(const google::protobuf::EnumDescriptor& kind,
                      const std::string& field, const std::string& name,
                      std::optional<Enum>& value) {
  std::vector<std::string> names;
  for (int i = 1; i < kind.value_count(); ++i) {
    names.push_back(kind.value(i)->name());
    if (names.back() != absl::AsciiStrToUpper(name)) continue;
    value = static_cast<Enum>(kind.value(i)->number());
    return absl::OkStatus();
  }
  return FieldError(field, name, absl::StrJoin(names, ", "));
}

absl::Status SetField(const std::string& name, const std::string& value,
                      WhyQuery& query) {
  const std::map<std::string, std::optional<int32_t>*> numbers = {
      {"tp", &query.tp},           {"cp", &query.cp},
      {"ulysses", &query.ulysses}, {"pp", &query.pp},
      {"dp", &query.dp},           {"ep", &query.ep},
      {"chunks", &query.chunks},   {"microbatch_size", &query.microbatch_size}};
  const std::map<std::string, std::optional<bool>*> flags = {
      {"sequence_parallel", &query.sequence_parallel},
      {"offload", &query.offload}};
  if (const auto number = numbers.find(name); number != numbers.end()) {
    int32_t parsed = 0;
    if (!absl::SimpleAtoi(value, &parsed) || parsed < 1) {
      return FieldError(name, value, "a whole number of at least 1");
    }
    *number->second = parsed;
    return absl::OkStatus();
  }
  if (const auto flag = flags.find(name); flag != flags.end()) {
    bool parsed = false;
    if (!absl::SimpleAtob(value, &parsed)) {
      return FieldError(name, value, "true or false");
    }
    *flag->second = parsed;
    return absl::OkStatus();
  }
  if (name == "schedule") {
    return SetNamed(*Plan::Schedule_descriptor(), name, value, query.schedule);
  }
  if (name == "sharding") {
    return SetNamed(*Plan::Sharding_descriptor(), name, value, query.sharding);
  }
  if (name == "recompute") {
    return SetNamed(*Plan::Recompute_descriptor(), name, value,
                    query.recompute);
  }
  return InvalidArgument(
      "--why: found the field '{}', expected tp, cp, ulysses, pp, dp, ep, "
      "chunks, microbatch_size, sequence_parallel, offload, schedule, sharding "
      "or recompute",
      name);
}

}  // namespace

absl::StatusOr<WhyQuery> ParseWhyQuery(std::string_view text) {
  WhyQuery query;
  std::set<std::string> given;
  const std::string whole(text);
  const std::vector<std::string> assignments = absl::StrSplit(whole, ',');
  for (const std::string& assignment : assignments) {
    const std::vector<std::string> parts = absl::StrSplit(assignment, '=');
    if (parts.size() != 2) {
      return InvalidArgument(
          "--why: found '{}', expected FIELD=VALUE, separated by commas",
          assignment);
    }
    if (!given.insert(parts[0]).second) {
      return FieldError(parts[0], parts[1], "the field once");
    }
    RETURN_IF_ERROR(SetField(parts[0], parts[1], query));
  }
  return query;
}

}  // namespace trireme
