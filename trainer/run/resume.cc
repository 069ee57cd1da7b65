#include "trainer/run/resume.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <string_view>

#include "absl/strings/str_split.h"
#include "fmt/format.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "google/protobuf/text_format.h"
#include "runtime/checkpoint/checkpoint_folder.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/textproto.h"

namespace trireme {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int64_t kMostBytes = int64_t{16} << 20;

// What a run may change while it goes on. A field that is not listed is one
// that a run must keep.
constexpr std::array<std::string_view, 13> kMayChange = {
    "name",
    "steps",
    "global_batch",
    "optimizer",
    "checkpoint",
    "log",
    "health",
    "sample",
    "validation",
    "memory_limit_bytes",
    "loss_scaling",
    "communication_deadline_s",
    "data.decode_threads"};
// Of those, what it must keep nevertheless.
constexpr std::array<std::string_view, 1> kMustStay = {"optimizer.ema_decay"};

// Whether `field` is `name` or lies within it.
bool IsWithin(std::string_view field, std::string_view name) {
  return field.starts_with(name) &&
         (field.size() == name.size() || field[name.size()] == '.');
}

template <typename Names>
bool IsWithinAny(std::string_view field, const Names& names) {
  return std::any_of(names.begin(), names.end(), [&](std::string_view name) {
    return IsWithin(field, name);
  });
}

bool MayChange(std::string_view field) {
  return IsWithinAny(field, kMayChange) && !IsWithinAny(field, kMustStay);
}

std::string ValueText(const Message& message, const FieldDescriptor* field) {
  const auto* reflection = message.GetReflection();
  std::string text;
  if (!field->is_repeated()) {
    if (field->has_presence() && !reflection->HasField(message, field)) {
      return "nothing";
    }
    google::protobuf::TextFormat::PrintFieldValueToString(message, field, -1,
                                                          &text);
    return text;
  }
  for (int i = 0; i < reflection->FieldSize(message, field); ++i) {
    std::string element;
    google::protobuf::TextFormat::PrintFieldValueToString(message, field, i,
                                                          &element);
    text += (text.empty() ? "" : ", ") + element;
  }
  return "[" + text + "]";
}

void Compare(const Message& run, const Message& now, const std::string& prefix,
             std::vector<JobDifference>& differences) {
  const auto* descriptor = run.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    const std::string name = prefix + field->name();
    if (!field->is_repeated() &&
        field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Compare(run.GetReflection()->GetMessage(run, field),
              now.GetReflection()->GetMessage(now, field), name + ".",
              differences);
      continue;
    }
    const std::string then = ValueText(run, field);
    const std::string text = ValueText(now, field);
    if (then != text) differences.push_back({name, then, text});
  }
}

bool IsField(const std::string& name) {
  const auto* descriptor = Job::descriptor();
  const std::vector<std::string> parts = absl::StrSplit(name, '.');
  for (const std::string& part : parts) {
    if (descriptor == nullptr) return false;
    const FieldDescriptor* field = descriptor->FindFieldByName(part);
    if (field == nullptr) return false;
    descriptor = field->message_type();
  }
  return true;
}

}  // namespace

std::vector<JobDifference> DifferencesThatMatter(const Job& run,
                                                 const Job& now) {
  std::vector<JobDifference> differences;
  Compare(run, now, "", differences);
  std::erase_if(differences, [](const JobDifference& difference) {
    return MayChange(difference.field);
  });
  return differences;
}

absl::Status CheckSameRun(const Job& run, const Job& now,
                          const std::vector<std::string>& allowed) {
  for (const std::string& name : allowed) {
    if (!IsField(name)) {
      return InvalidArgument(
          "--allow: found '{}', expected fields of the job, as "
          "optimizer.ema_decay,seed",
          name);
    }
  }
  std::string list, fields;
  for (const JobDifference& difference : DifferencesThatMatter(run, now)) {
    if (IsWithinAny(difference.field, allowed)) continue;
    list += fmt::format("\n  {}: {} in the run, {} now", difference.field,
                        difference.run, difference.now);
    fields += (fields.empty() ? "" : ",") + difference.field;
  }
  if (list.empty()) return absl::OkStatus();
  return FailedPrecondition(
      "the job differs from the run's:{}\nexpected the same; `--allow {}` goes "
      "on nevertheless",
      list, fields);
}

absl::StatusOr<std::optional<ResumePoint>> FindResumePoint(
    const RunFolder& folder, const Job& now,
    const std::vector<std::string>& allowed, std::optional<int64_t> step) {
  const absl::StatusOr<WholeCheckpoint> found =
      FindWholeCheckpoint(folder.checkpoints(), step);
  if (absl::IsNotFound(found.status())) return std::nullopt;
  RETURN_IF_ERROR(found.status());
  for (const absl::Status& damage : found->damaged) {
    LOG(ERROR) << "A DAMAGED CHECKPOINT is passed over for " << found->path
               << ": " << MessageOf(damage);
  }
  RETURN_IF_ERROR(
      CheckGoesOn(folder, now, allowed, found->manifest.step, found->path));
  return ResumePoint{.checkpoint = found->path, .step = found->manifest.step};
}

absl::Status CheckGoesOn(const RunFolder& folder, const Job& now,
                         const std::vector<std::string>& allowed, int64_t step,
                         const std::string& where) {
  Job run;
  RETURN_IF_ERROR(ParseTextProtoFile(folder.job(), &run).status());
  RETURN_IF_ERROR(WithContext(CheckSameRun(run, now, allowed), folder.root()));
  if (step <= static_cast<int64_t>(now.steps())) return absl::OkStatus();
  return InvalidArgument("steps: found {}, expected at least the {} of {}",
                         now.steps(), step, where);
}

absl::Status KeepBeside(const std::string& path, const std::string& content,
                        int64_t step) {
  const absl::StatusOr<std::string> there = ReadFile(path, kMostBytes);
  if (absl::IsNotFound(there.status())) return absl::OkStatus();
  RETURN_IF_ERROR(there.status());
  if (*there == content) return absl::OkStatus();
  const std::filesystem::path old(path);
  for (int number = 1;; ++number) {
    const std::string kept =
        old.parent_path() /
        fmt::format("{}.until_step_{:08}{}{}", old.stem().string(), step,
                    number > 1 ? fmt::format("_{}", number) : "",
                    old.extension().string());
    const absl::StatusOr<std::string> taken = ReadFile(kept, kMostBytes);
    if (taken.ok() && *taken == *there) return absl::OkStatus();
    if (absl::IsNotFound(taken.status())) {
      return WriteFileAtomically(kept, *there);
    }
  }
}

}  // namespace trireme
