#include "trainer/config/json_check.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "nlohmann/json.hpp"

namespace trireme {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::OneofDescriptor;
using nlohmann::json;

constexpr size_t kMostProblems = 20;
constexpr size_t kDeepest = 64;

// The text's characters, which counts the lines that have been read.
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, int* line) : at_(at), line_(line) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    *line_ += *at_ == '\n' ? 1 : 0;
    ++at_;
    return *this;
  }
  bool operator==(const CountingIterator& other) const {
    return at_ == other.at_;
  }
  bool operator!=(const CountingIterator& other) const {
    return at_ != other.at_;
  }

 private:
  const char* at_;
  int* line_;
};

// What nlohmann's parser calls with all that it finds, in order. Each function
// returns whether to go on.
class Checker : public nlohmann::json_sax<json> {
 public:
  explicit Checker(const Descriptor& root) : root_(root) {}

  // Read so far, from 1.
  int* line() { return &line_; }
  CheckedText Take() { return std::move(checked_); }

  bool null() override {
    // Stands for a field left out, but not for an element.
    if (!open_.empty() && !open_.back().list) return true;
    return Value("null", [](const FieldDescriptor&) { return false; });
  }
  bool boolean(bool value) override {
    return Value(value ? "true" : "false", [](const FieldDescriptor& field) {
      return field.cpp_type() == FieldDescriptor::CPPTYPE_BOOL;
    });
  }
  bool number_integer(number_integer_t value) override {
    return Number(std::to_string(value));
  }
  bool number_unsigned(number_unsigned_t value) override {
    return Number(std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Number(text);
  }
  bool string(string_t& value) override {
    return Value(
        fmt::format("\"{}\"", value),
        [&](const FieldDescriptor& field) { return IsString(field, value); });
  }
  bool binary(binary_t&) override { return false; }

  bool start_object(size_t) override {
    if (open_.empty()) return Open({.type = &root_});
    const FieldDescriptor* field = open_.back().field;
    if (field == nullptr) return Open({});
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE ||
        (field->is_repeated() && !open_.back().list)) {
      AddWrongValue("an object");
      return Open({});
    }
    const std::string path = PathOfValue();
    checked_.lines.emplace(path, key_line_);
    return Open({.type = field->message_type(), .path = path});
  }
  bool end_object() override { return Close(); }

  bool key(string_t& name) override {
    key_line_ = line_;
    Level& level = open_.back();
    level.field = nullptr;
    if (level.type == nullptr) return true;
    const FieldDescriptor* field = level.type->FindFieldByName(name);
    if (field == nullptr) field = level.type->FindFieldByCamelcaseName(name);
    const std::string path =
        (level.path.empty() ? "" : level.path + ".") +
        (field == nullptr ? name.substr(0, 60) : field->name());
    if (field == nullptr) {
      Add(fmt::format("{}: {}", path, UnknownField(name, *level.type)));
      return Continues();
    }
    checked_.lines.emplace(path, line_);
    level.field = field;
    if (!level.seen.insert(field).second) {
      Add(fmt::format("{}: found a second time, expected it once", path));
    } else if (const OneofDescriptor* oneof = field->real_containing_oneof()) {
      const auto [other, first] = level.chosen.emplace(oneof, field);
      if (!first) {
        Add(
            fmt::format("{}: found beside '{}', expected only one of them, as "
                        "they are choices of '{}'",
                        path, other->second->name(), oneof->name()));
      }
    }
    return Continues();
  }

  bool start_array(size_t) override {
    if (open_.empty()) {
      key_line_ = line_;
      Add(fmt::format("found a list, expected the fields of a {}",
                      root_.full_name()));
      return false;
    }
    const FieldDescriptor* field = open_.back().field;
    if (field == nullptr) return Open({});
    if (!field->is_repeated() || open_.back().list) {
      AddWrongValue("a list");
      return Open({});
    }
    return Open({.field = field, .list = true, .path = PathOfValue()});
  }
  bool end_array() override { return Close(); }

  bool parse_error(size_t, const std::string&,
                   const nlohmann::detail::exception& error) override {
    // "[json.exception.parse_error.101] parse error at line 3, column 20:
    // syntax error while ..."
    const std::string what = error.what();
    const size_t column = what.find("column ");
    const size_t message = what.find(": ");
    TextProblem problem = {.line = line_, .column = 1, .message = what};
    if (column != std::string::npos && message != std::string::npos) {
      (void)absl::SimpleAtoi(what.substr(column + 7, message - column - 7),
                             &problem.column);
      problem.message = what.substr(message + 2);
    }
    checked_.problems.push_back(std::move(problem));
    return false;
  }

 private:
  // An object or a list that has not ended. Without `type` and `field`: in a
  // value that is wrong already.
  struct Level {
    const Descriptor* type = nullptr;
    // The one whose value comes next.
    const FieldDescriptor* field = nullptr;
    bool list = false;
    size_t elements = 0;
    std::string path;
    std::set<const FieldDescriptor*> seen;
    std::map<const OneofDescriptor*, const FieldDescriptor*> chosen;
  };

  bool Continues() const { return checked_.problems.size() < kMostProblems; }

  bool Open(Level level) {
    if (open_.size() > kDeepest) {
      Add(fmt::format("found more than {} objects and lists in one another",
                      kDeepest));
      return false;
    }
    open_.push_back(std::move(level));
    return Continues();
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  void Add(std::string message) {
    checked_.problems.push_back({key_line_, 1, std::move(message)});
  }

  // Of the value that comes, the next element in a list.
  std::string PathOfValue() {
    Level& level = open_.back();
    if (level.list) return fmt::format("{}[{}]", level.path, level.elements++);
    return (level.path.empty() ? "" : level.path + ".") + level.field->name();
  }

  void AddWrongValue(const std::string& found) {
    const FieldDescriptor& field = *open_.back().field;
    const bool list = field.is_repeated() && !open_.back().list;
    Add(fmt::format("{}: found {}, expected {}{}", PathOfValue(),
                    found.substr(0, 60), list ? "a list, each " : "",
                    ExpectedValue(field)));
  }

  template <typename Predicate>
  bool Value(const std::string& found, Predicate accepts) {
    if (open_.empty()) {
      key_line_ = line_;
      Add(fmt::format("found {}, expected {{ the fields of a {} }}", found,
                      root_.full_name()));
      return false;
    }
    const FieldDescriptor* field = open_.back().field;
    if (field == nullptr) return true;
    if ((field->is_repeated() && !open_.back().list) || !accepts(*field)) {
      AddWrongValue(found);
      return Continues();
    }
    if (open_.back().list) checked_.lines.emplace(PathOfValue(), key_line_);
    return true;
  }

  bool Number(const std::string& text) {
    return Value(text, [&](const FieldDescriptor& field) {
      return IsNumber(field, text);
    });
  }

  template <typename T>
  static bool IsInteger(const std::string& text) {
    T value;
    if (absl::SimpleAtoi(text, &value)) return true;
    // 1e3 and 4.0 are integers too.
    double number = 0;
    return absl::SimpleAtod(text, &number) &&
           number >= static_cast<double>(std::numeric_limits<T>::min()) &&
           number <= static_cast<double>(std::numeric_limits<T>::max()) &&
           number == std::trunc(number);
  }

  static bool IsNumber(const FieldDescriptor& field, const std::string& text) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return IsInteger<int32_t>(text);
      case FieldDescriptor::CPPTYPE_INT64:
        return IsInteger<int64_t>(text);
      case FieldDescriptor::CPPTYPE_UINT32:
        return IsInteger<uint32_t>(text);
      case FieldDescriptor::CPPTYPE_UINT64:
        return IsInteger<uint64_t>(text);
      case FieldDescriptor::CPPTYPE_FLOAT:
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return true;
      case FieldDescriptor::CPPTYPE_ENUM: {
        int32_t number = 0;
        return absl::SimpleAtoi(text, &number) &&
               field.enum_type()->FindValueByNumber(number) != nullptr;
      }
      default:
        return false;
    }
  }

  static bool IsString(const FieldDescriptor& field, const std::string& text) {
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        return true;
      case FieldDescriptor::CPPTYPE_ENUM:
        return field.enum_type()->FindValueByName(text) != nullptr;
      case FieldDescriptor::CPPTYPE_FLOAT:
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double number = 0;  // "NaN" and "Infinity" too
        return absl::SimpleAtod(text, &number);
      }
      default:
        return IsNumber(field, text);
    }
  }

  const Descriptor& root_;
  CheckedText checked_;
  std::vector<Level> open_;
  int line_ = 1;
  int key_line_ = 1;  // of the last field's name
};

}  // namespace

CheckedText CheckJson(std::string_view text, const Descriptor& root) {
  Checker checker(root);
  json::sax_parse(CountingIterator(text.data(), checker.line()),
                  CountingIterator(text.data() + text.size(), checker.line()),
                  &checker);
  return checker.Take();
}

}  // namespace trireme
