#include "scheduler/explain/query.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/generated_enum_reflection.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

absl::Status FieldError(std::string_view field, std::string_view value,
                        std::string_view expected) {
  return InvalidArgument("--why: found {}={}, expected {}", field, value,
                         expected);
}

// Every field with its name and the candidate's value.
template <typename Query, typename Visit>
void ForEachField(Query& query, const Candidate& candidate, Visit visit) {
  visit("tp", query.tp, candidate.tp);
  visit("cp", query.cp, candidate.cp);
  visit("ulysses", query.ulysses, candidate.ulysses);
  visit("pp", query.pp, candidate.pp);
  visit("dp", query.dp, candidate.dp);
  visit("ep", query.ep, candidate.ep);
  visit("chunks", query.chunks, candidate.chunks);
  visit("microbatch_size", query.microbatch_size, candidate.microbatch_size);
  visit("sequence_parallel", query.sequence_parallel,
        candidate.sequence_parallel);
  visit("offload", query.offload, candidate.offload);
  visit("schedule", query.schedule, candidate.schedule);
  visit("sharding", query.sharding, candidate.sharding);
  visit("recompute", query.recompute, candidate.recompute);
}

absl::Status Parse(std::string_view field, const std::string& text,
                   std::optional<int32_t>& value) {
  int32_t parsed = 0;
  if (!absl::SimpleAtoi(text, &parsed) || parsed < 1) {
    return FieldError(field, text, "a whole number of at least 1");
  }
  value = parsed;
  return absl::OkStatus();
}

absl::Status Parse(std::string_view field, const std::string& text,
                   std::optional<bool>& value) {
  bool parsed = false;
  if (!absl::SimpleAtob(text, &parsed)) {
    return FieldError(field, text, "true or false");
  }
  value = parsed;
  return absl::OkStatus();
}

// An enumeration's name, which is not the unspecified one.
template <typename Enum>
absl::Status Parse(std::string_view field, const std::string& text,
                   std::optional<Enum>& value) {
  const auto& kind = *google::protobuf::GetEnumDescriptor<Enum>();
  std::vector<std::string> names;
  for (int i = 1; i < kind.value_count(); ++i) {
    names.push_back(kind.value(i)->name());
    if (names.back() != absl::AsciiStrToUpper(text)) continue;
    value = static_cast<Enum>(kind.value(i)->number());
    return absl::OkStatus();
  }
  return FieldError(field, text, fmt::format("{}", fmt::join(names, ", ")));
}

absl::Status SetField(const std::string& name, const std::string& text,
                      WhyQuery& query) {
  std::vector<std::string_view> names;
  std::optional<absl::Status> set;
  ForEachField(query, {},
               [&](std::string_view field, auto& value, const auto&) {
                 names.push_back(field);
                 if (field == name) set = Parse(field, text, value);
               });
  if (set.has_value()) return *set;
  return InvalidArgument("--why: found the field '{}', expected one of {}",
                         name, fmt::join(names, ", "));
}

}  // namespace

bool Matches(const Candidate& candidate, const WhyQuery& query) {
  bool matches = true;
  ForEachField(query, candidate,
               [&](std::string_view, const auto& wanted, const auto& value) {
                 matches &= !wanted.has_value() || *wanted == value;
               });
  return matches;
}

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
