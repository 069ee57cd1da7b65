#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "google/protobuf/text_format.h"
#include "runtime/core/nearest_name.h"
#include "runtime/core/status.h"
#include "trainer/config/text_check.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr size_t kLongestAssignment = size_t{1} << 20;

// One part of a field path: "stages[0]".
struct PathPart {
  std::string name;
  std::optional<int> index;
};

// Names and indices only: what they mean depends on the message.
absl::StatusOr<std::vector<PathPart>> ParsePath(std::string_view path) {
  std::vector<PathPart> parts;
  for (size_t start = 0; start <= path.size();) {
    const size_t end = std::min(path.find('.', start), path.size());
    const std::string_view text = path.substr(start, end - start);
    const size_t bracket = text.find('[');
    PathPart part = {std::string(text.substr(0, bracket)), std::nullopt};
    if (part.name.empty()) {
      return InvalidArgument(
          "found '{}', expected FIELD=VALUE with FIELD as "
          "optimizer.learning_rate or stages[0].blocks",
          path);
    }
    if (bracket != std::string_view::npos) {
      const std::string_view digits = text.substr(bracket + 1);
      int index = 0;
      const auto [stop, error] =
          std::from_chars(digits.data(), digits.data() + digits.size(), index);
      if (error != std::errc() || index < 0 ||
          std::string_view(stop, digits.data() + digits.size()) != "]") {
        return InvalidArgument("found '{}', expected an index as in {}[0]",
                               text, part.name);
      }
      part.index = index;
    }
    parts.push_back(std::move(part));
    start = end + 1;
  }
  return parts;
}

// Paths of the fields in the messages below `type`, by the fields' names.
void AddNested(const Descriptor& type, const std::string& prefix, int depth,
               std::multimap<std::string, std::string>& paths) {
  if (depth == 0) return;
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = prefix + field.name();
    paths.emplace(field.name(), path);
    // Elements of lists have no path before they are there.
    if (field.is_repeated() || field.message_type() == nullptr) continue;
    AddNested(*field.message_type(), path + ".", depth - 1, paths);
  }
}

// People often leave out the messages that a field lies in, so these are
// searched where `type` itself has no name that is near. `prefix` is where
// `type` lies: "" or "model."
std::string UnknownPath(const std::string& name, const Descriptor& type,
                        const std::string& prefix) {
  constexpr int kDepth = 8;
  std::vector<std::string> own;
  for (int i = 0; i < type.field_count(); ++i) {
    own.push_back(type.field(i)->name());
  }
  std::multimap<std::string, std::string> paths;
  AddNested(type, prefix, kDepth, paths);
  std::vector<std::string> names;
  for (const auto& [field, path] : paths) names.push_back(field);
  const std::string nearest = NearestName(name, names);
  if (nearest.empty() || !NearestName(name, own).empty()) {
    return UnknownField(name, type);
  }
  std::vector<std::string> meant;
  const auto [begin, end] = paths.equal_range(nearest);
  for (auto it = begin; it != end; ++it) meant.push_back(it->second);
  return fmt::format("unknown field '{}' in {}; did you mean '{}'?", name,
                     type.full_name(), fmt::join(meant, "' or '"));
}

// The part's field, its index checked against what `message` holds.
absl::StatusOr<const FieldDescriptor*> FieldOf(const Message& message,
                                               const PathPart& part,
                                               const std::string& prefix) {
  const Descriptor& type = *message.GetDescriptor();
  const FieldDescriptor* field = type.FindFieldByName(part.name);
  if (field == nullptr) {
    return absl::InvalidArgumentError(UnknownPath(
        part.name, type, prefix.empty() ? "" : fmt::format("{}.", prefix)));
  }
  if (!part.index.has_value()) return field;
  if (!field->is_repeated()) {
    return InvalidArgument(
        "found index {} on '{}', expected none, as the "
        "field is not repeated",
        *part.index, part.name);
  }
  const int size = message.GetReflection()->FieldSize(message, field);
  if (*part.index >= size) {
    return InvalidArgument(
        "found index {} of '{}', expected one below {}, "
        "its number of elements",
        *part.index, part.name, size);
  }
  return field;
}

// The message that the path's part before the last names.
absl::StatusOr<Message*> Enter(Message* message, const PathPart& part,
                               const std::string& prefix) {
  ASSIGN_OR_RETURN(const FieldDescriptor* field,
                   FieldOf(*message, part, prefix));
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    return InvalidArgument(
        "found a field of '{}', expected none, as it is no "
        "message",
        part.name);
  }
  const Reflection* reflection = message->GetReflection();
  if (!field->is_repeated()) return reflection->MutableMessage(message, field);
  if (!part.index.has_value()) {
    return InvalidArgument(
        "found a field of all of '{}', expected an index "
        "as in {}[0]",
        part.name, part.name);
  }
  return reflection->MutableRepeatedMessage(message, field, *part.index);
}

// Strings need no quotes on a command line, where the shell takes them away.
std::string ValueText(const FieldDescriptor& field, const std::string& value) {
  const bool quoted = value.size() >= 2 &&
                      (value.front() == '"' || value.front() == '\'') &&
                      value.back() == value.front();
  const bool list = field.is_repeated() && value.starts_with('[');
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_STRING || quoted || list) {
    return value;
  }
  return fmt::format("\"{}\"", absl::CEscape(value));
}

// A message like `parent` with nothing but `field` set, to `value`.
absl::StatusOr<std::unique_ptr<Message>> ParseValue(
    const Message& parent, const FieldDescriptor& field,
    const std::string& prefix, const std::string& value) {
  const std::string text =
      fmt::format("{}: {}", field.name(), ValueText(field, value));
  const CheckedText checked = CheckText(text, *parent.GetDescriptor(), prefix);
  if (!checked.problems.empty()) {
    std::string all;
    for (const TextProblem& problem : checked.problems) {
      if (!all.empty()) all += "; ";
      all += problem.message;
    }
    return absl::InvalidArgumentError(all);
  }
  std::unique_ptr<Message> parsed(parent.New());
  std::vector<const FieldDescriptor*> set;
  // A value as "1 steps: 2" would set more than its field.
  if (google::protobuf::TextFormat::ParseFromString(text, parsed.get())) {
    parsed->GetReflection()->ListFields(*parsed, &set);
    if (set.empty() || (set.size() == 1 && set[0] == &field)) return parsed;
  }
  return InvalidArgument("{}{}{}: found '{}', expected one value", prefix,
                         prefix.empty() ? "" : ".", field.name(), value);
}

absl::Status SetField(const PathPart& part, const std::string& prefix,
                      const std::string& value, bool append, Message* parent) {
  ASSIGN_OR_RETURN(const FieldDescriptor* field,
                   FieldOf(*parent, part, prefix));
  if (append && (!field->is_repeated() || part.index.has_value())) {
    return InvalidArgument(
        "found '+=' for '{}', expected '=', as it is no "
        "repeated field",
        part.name);
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<Message> parsed,
                   ParseValue(*parent, *field, prefix, value));
  const Reflection* reflection = parent->GetReflection();
  if (part.index.has_value()) {
    if (parsed->GetReflection()->FieldSize(*parsed, field) != 1) {
      return InvalidArgument("{}[{}]: found '{}', expected one element",
                             part.name, *part.index, value);
    }
    // The new element comes last, changes places with the old, which goes.
    parent->MergeFrom(*parsed);
    const int last = reflection->FieldSize(*parent, field) - 1;
    reflection->SwapElements(parent, field, *part.index, last);
    reflection->RemoveLast(parent, field);
    return absl::OkStatus();
  }
  if (!append) reflection->ClearField(parent, field);
  parent->MergeFrom(*parsed);
  return absl::OkStatus();
}

absl::Status Apply(const std::string& assignment, Message* message) {
  if (assignment.size() > kLongestAssignment) {
    return InvalidArgument("found {} bytes, expected at most {}",
                           assignment.size(), kLongestAssignment);
  }
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos) {
    return InvalidArgument("found no '=', expected FIELD=VALUE");
  }
  const bool append = equals > 0 && assignment[equals - 1] == '+';
  const std::string path = assignment.substr(0, append ? equals - 1 : equals);
  ASSIGN_OR_RETURN(const std::vector<PathPart> parts, ParsePath(path));
  Message* parent = message;
  std::string prefix;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    ASSIGN_OR_RETURN(parent, Enter(parent, parts[i], prefix));
    // Ends before the dot after this part.
    prefix = path.substr(0, path.find('.', prefix.size() + 1));
  }
  return SetField(parts.back(), prefix, assignment.substr(equals + 1), append,
                  parent);
}

}  // namespace

absl::Status ApplyOverride(const std::string& assignment, Message* message) {
  const std::unique_ptr<Message> changed(message->New());
  changed->CopyFrom(*message);
  RETURN_IF_ERROR(WithContext(Apply(assignment, changed.get()),
                              "--set " + assignment.substr(0, 200)));
  message->GetReflection()->Swap(message, changed.get());
  return absl::OkStatus();
}

}  // namespace trireme
