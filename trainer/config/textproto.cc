#include "trainer/config/textproto.h"

#include <fmt/format.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "runtime/core/file.h"
#include "runtime/core/log.h"
#include "runtime/core/status.h"
#include "trainer/config/json_check.h"
#include "trainer/config/text_check.h"

namespace trireme {
namespace {

using google::protobuf::Message;

constexpr int64_t kMostBytes = int64_t{16} << 20;

// What protobuf's parser finds where CheckText found nothing.
class Problems : public google::protobuf::io::ErrorCollector {
 public:
  explicit Problems(std::string name) : name_(std::move(name)) {}

  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    if (!text_.empty()) text_ += '\n';
    text_ += fmt::format("{}:{}:{}: {}", name_, line + 1, column + 1, message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string name_;
  std::string text_;
};

// An error with one line for each problem.
absl::Status StatusOf(const CheckedText& checked, const std::string& name) {
  std::string all;
  for (const TextProblem& problem : checked.problems) {
    if (!all.empty()) all += '\n';
    all += fmt::format("{}:{}:{}: {}", name, problem.line, problem.column,
                       problem.message);
  }
  return all.empty() ? absl::OkStatus() : absl::InvalidArgumentError(all);
}

absl::StatusOr<FieldLocations> ParseJson(const std::string& text,
                                         const std::string& name,
                                         Message* message) {
  const CheckedText checked = CheckJson(text, *message->GetDescriptor());
  RETURN_IF_ERROR(StatusOf(checked, name));
  const std::unique_ptr<Message> parsed(message->New());
  const auto status =
      google::protobuf::util::JsonStringToMessage(text, parsed.get());
  if (!status.ok()) {
    const auto reason = status.message();
    return InvalidArgument("{}: found JSON that is no {}: {}", name,
                           message->GetDescriptor()->full_name(),
                           std::string(reason.data(), reason.size()));
  }
  message->GetReflection()->Swap(message, parsed.get());
  return FieldLocations(name, message->GetDescriptor(), checked.lines);
}

std::string PrintJson(const Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = true;
  options.preserve_proto_field_names = true;
  std::string text;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &text, options);
  CHECK(status.ok()) << message.GetDescriptor()->full_name();
  return text;
}

}  // namespace

absl::StatusOr<FieldLocations> ParseTextProto(std::string_view text,
                                              const std::string& name,
                                              Message* message) {
  if (text.size() > kMostBytes) {
    return ResourceExhausted("{}: found {} bytes, expected at most {}", name,
                             text.size(), kMostBytes);
  }
  const CheckedText checked = CheckText(text, *message->GetDescriptor(), "");
  RETURN_IF_ERROR(StatusOf(checked, name));
  Problems problems(name);
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&problems);
  const std::unique_ptr<Message> parsed(message->New());
  google::protobuf::io::ArrayInputStream input(text.data(),
                                               static_cast<int>(text.size()));
  if (!parser.Parse(&input, parsed.get())) {
    return absl::InvalidArgumentError(problems.text());
  }
  message->GetReflection()->Swap(message, parsed.get());
  return FieldLocations(name, message->GetDescriptor(), checked.lines);
}

absl::StatusOr<FieldLocations> ParseTextProtoFile(const std::string& path,
                                                  Message* message) {
  ASSIGN_OR_RETURN(std::string text, ReadFile(path, kMostBytes));
  // Editors of Windows begin files with the mark of UTF-8.
  constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
  if (text.starts_with(kByteOrderMark)) text.erase(0, kByteOrderMark.size());
  if (path.ends_with(".json")) return ParseJson(text, path, message);
  return ParseTextProto(text, path, message);
}

std::string PrintTextProto(const Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetUseShortRepeatedPrimitives(true);
  printer.SetUseUtf8StringEscaping(true);
  std::string text;
  CHECK(printer.PrintToString(message, &text))
      << message.GetDescriptor()->full_name();
  return text;
}

absl::Status WriteTextProtoFile(const Message& message,
                                const std::string& path) {
  return WriteFileAtomically(path, path.ends_with(".json")
                                       ? PrintJson(message)
                                       : PrintTextProto(message));
}

}  // namespace trireme
