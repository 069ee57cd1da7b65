#include "trainer/config/text_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "runtime/core/nearest_name.h"

namespace trireme {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::OneofDescriptor;
using google::protobuf::io::Tokenizer;

constexpr size_t kMostProblems = 20;
constexpr size_t kMostLines = size_t{1} << 18;
constexpr int kDeepest = 64;
constexpr size_t kLongestShown = 60;

std::string Shown(std::string text) {
  if (text.size() > kLongestShown) text = text.substr(0, kLongestShown) + "...";
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < ' '; }, '?');
  return text;
}

// The path of a field in the message at `prefix`.
std::string PathOf(const std::string& prefix, const std::string& name) {
  return prefix.empty() ? name : prefix + "." + name;
}

std::string Quoted(const std::string& text) {
  return fmt::format("'{}'", Shown(text));
}

// The names to write: not those that stand for a field left out.
std::vector<std::string> EnumNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) {
    if (!type.value(i)->name().ends_with("_UNSPECIFIED")) {
      names.push_back(type.value(i)->name());
    }
  }
  return names;
}

class Checker : private google::protobuf::io::ErrorCollector {
 public:
  explicit Checker(std::string_view text)
      : input_(text.data(), static_cast<int>(text.size())),
        tokenizer_(&input_, this) {
    // As protobuf's own text parser sets them.
    tokenizer_.set_allow_f_after_float(true);
    tokenizer_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer_.set_require_space_after_number(false);
    tokenizer_.Next();
  }

  CheckedText Check(const Descriptor& root, const std::string& prefix) {
    ParseFields(root, prefix, "", 0, 0);
    std::stable_sort(checked_.problems.begin(), checked_.problems.end(),
                     [](const TextProblem& a, const TextProblem& b) {
                       return std::pair(a.line, a.column) <
                              std::pair(b.line, b.column);
                     });
    return std::move(checked_);
  }

 private:
  // What the tokenizer finds: unfinished strings and the like.
  void AddError(int line, google::protobuf::io::ColumnNumber column,
                const std::string& message) override {
    AddProblem(line, column, message);
  }

  void AddProblem(int line, int column, std::string message) {
    if (checked_.problems.size() >= kMostProblems) return;
    checked_.problems.push_back({line + 1, column + 1, std::move(message)});
  }
  void AddProblem(const Tokenizer::Token& token, std::string message) {
    AddProblem(token.line, token.column, std::move(message));
  }

  const Tokenizer::Token& current() { return tokenizer_.current(); }
  bool At(std::string_view symbol) {
    return current().type == Tokenizer::TYPE_SYMBOL && current().text == symbol;
  }
  bool AtEnd() { return current().type == Tokenizer::TYPE_END; }
  bool Consume(std::string_view symbol) {
    if (!At(symbol)) return false;
    tokenizer_.Next();
    return true;
  }
  std::string Found() {
    if (AtEnd()) return "the end of the text";
    // A string has its own quotes.
    return current().type == Tokenizer::TYPE_STRING ? Shown(current().text)
                                                    : Quoted(current().text);
  }

  // The functions below return false when the text cannot be followed further;
  // they have added a problem then.

  bool Fail(const std::string& expected) {
    AddProblem(current(),
               fmt::format("found {}, expected {}", Found(), expected));
    return false;
  }

  // Up to and including `close`, or the end of the text where that is empty.
  // `opened`: the line of the bracket that it closes.
  bool ParseFields(const Descriptor& type, const std::string& prefix,
                   std::string_view close, int opened, int depth) {
    if (depth > kDeepest) {
      return Fail(fmt::format("at most {} messages in one another", kDeepest));
    }
    std::set<const FieldDescriptor*> seen;
    std::map<const OneofDescriptor*, const FieldDescriptor*> chosen;
    while (checked_.problems.size() < kMostProblems) {
      if (!close.empty() && Consume(close)) return true;
      if (AtEnd()) {
        if (close.empty()) return true;
        return Fail(fmt::format("'{}' for what line {} opens", close, opened));
      }
      if (current().type != Tokenizer::TYPE_IDENTIFIER) {
        return Fail("the name of a field");
      }
      const Tokenizer::Token name = current();
      tokenizer_.Next();
      const FieldDescriptor* field = type.FindFieldByName(name.text);
      if (field == nullptr) {
        AddProblem(name, fmt::format("{}: {}", PathOf(prefix, Shown(name.text)),
                                     UnknownField(name.text, type)));
        if (!SkipField()) return false;
      } else {
        CheckRepetition(*field, PathOf(prefix, field->name()), name, seen,
                        chosen);
        if (!ParseField(*field, name.line, prefix, depth)) return false;
      }
      if (!Consume(",")) Consume(";");
    }
    return false;
  }

  void CheckRepetition(
      const FieldDescriptor& field, const std::string& path,
      const Tokenizer::Token& name, std::set<const FieldDescriptor*>& seen,
      std::map<const OneofDescriptor*, const FieldDescriptor*>& chosen) {
    if (field.is_repeated()) return;
    if (!seen.insert(&field).second) {
      AddProblem(
          name, fmt::format("{}: found a second time, expected it once", path));
      return;
    }
    const OneofDescriptor* oneof = field.real_containing_oneof();
    if (oneof == nullptr) return;
    const auto [other, first] = chosen.emplace(oneof, &field);
    if (first) return;
    AddProblem(name, fmt::format("{}: found beside '{}', expected only one of "
                                 "them, as they are choices of '{}'",
                                 path, other->second->name(), oneof->name()));
  }

  bool SkipField() {
    if (!Consume(":") && !At("{") && !At("<")) return Fail("':' or '{'");
    return SkipValue();
  }

  // A scalar, or brackets with all that is in them.
  bool SkipValue() {
    int open = 0;
    do {
      if (AtEnd()) return Fail("a value");
      if (At("{") || At("<") || At("[")) {
        ++open;
      } else if (At("}") || At(">") || At("]")) {
        if (open == 0) return Fail("a value");
        --open;
      } else if (open == 0) {
        Consume("-");
        SkipScalar();
        return true;
      }
      tokenizer_.Next();
    } while (open > 0);
    return true;
  }

  // A bracket that closes what holds the field stays, for the value is missing.
  bool SkipWrongValue() {
    if (AtEnd()) return false;
    return At("}") || At(">") || At("]") || SkipValue();
  }

  // One token, or strings side by side.
  void SkipScalar() {
    if (current().type != Tokenizer::TYPE_STRING) {
      tokenizer_.Next();
      return;
    }
    while (current().type == Tokenizer::TYPE_STRING) tokenizer_.Next();
  }

  // From behind the field's name.
  bool ParseField(const FieldDescriptor& field, int line,
                  const std::string& prefix, int depth) {
    const bool message = field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    if (!Consume(":") && !(message && (At("{") || At("<") || At("[")))) {
      return Fail(message ? "'{'" : "':'");
    }
    const std::string path = PathOf(prefix, field.name());
    SetLine(path, line);
    if (!field.is_repeated() || !At("[")) {
      return ParseElement(field, path, line, depth);
    }
    tokenizer_.Next();
    if (Consume("]")) return true;
    while (checked_.problems.size() < kMostProblems) {
      if (!ParseElement(field, path, current().line, depth)) return false;
      if (Consume("]")) return true;
      if (!Consume(",")) return Fail("',' or ']'");
    }
    return false;
  }

  bool ParseElement(const FieldDescriptor& field, const std::string& field_path,
                    int line, int depth) {
    std::string path = field_path;
    if (field.is_repeated()) {
      path += fmt::format("[{}]", elements_[field_path]++);
      SetLine(path, line);
    }
    if (field.cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      return ParseScalar(field, path);
    }
    const bool angle = At("<");
    if (angle || At("{")) {
      const int opened = current().line + 1;
      tokenizer_.Next();
      return ParseFields(*field.message_type(), path, angle ? ">" : "}", opened,
                         depth + 1);
    }
    AddWrongValue(field, path, current(), Found());
    return SkipWrongValue();
  }

  void SetLine(const std::string& path, int line) {
    if (checked_.lines.size() < kMostLines) {
      checked_.lines.emplace(path, line + 1);
    }
  }

  void AddWrongValue(const FieldDescriptor& field, const std::string& path,
                     const Tokenizer::Token& at, const std::string& found) {
    std::string message = fmt::format("{}: found {}, expected {}", path, found,
                                      ExpectedValue(field));
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
      const std::string nearest =
          NearestName(at.text, EnumNames(*field.enum_type()));
      if (!nearest.empty()) {
        message += fmt::format("; did you mean {}?", nearest);
      }
    }
    AddProblem(at, std::move(message));
  }

  bool ParseScalar(const FieldDescriptor& field, const std::string& path) {
    const Tokenizer::Token start = current();
    if (AtEnd() || At("{") || At("<") || At("[") || At("}") || At(">") ||
        At("]")) {
      AddWrongValue(field, path, start, Found());
      return SkipWrongValue();
    }
    const bool negative = Consume("-");
    if (!IsValue(field, negative)) {
      const std::string found =
          negative ? Quoted("-" + current().text) : Found();
      AddWrongValue(field, path, start, found);
    }
    SkipScalar();
    return true;
  }

  // Whether the current token, behind a minus sign if `negative`, is a value of
  // the field.
  bool IsValue(const FieldDescriptor& field, bool negative) {
    const Tokenizer::Token& token = current();
    const bool identifier = token.type == Tokenizer::TYPE_IDENTIFIER;
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return IsInteger(std::numeric_limits<int32_t>::max(), true, negative);
      case FieldDescriptor::CPPTYPE_INT64:
        return IsInteger(std::numeric_limits<int64_t>::max(), true, negative);
      case FieldDescriptor::CPPTYPE_UINT32:
        return IsInteger(std::numeric_limits<uint32_t>::max(), false, negative);
      case FieldDescriptor::CPPTYPE_UINT64:
        return IsInteger(std::numeric_limits<uint64_t>::max(), false, negative);
      case FieldDescriptor::CPPTYPE_FLOAT:
      case FieldDescriptor::CPPTYPE_DOUBLE:
        // Hexadecimal and octal are for integers only.
        return (token.type == Tokenizer::TYPE_INTEGER &&
                (token.text.size() == 1 || token.text[0] != '0')) ||
               token.type == Tokenizer::TYPE_FLOAT ||
               (identifier && (token.text == "inf" || token.text == "nan" ||
                               token.text == "infinity"));
      case FieldDescriptor::CPPTYPE_BOOL:
        if (token.type == Tokenizer::TYPE_INTEGER) {
          return IsInteger(1, false, negative);
        }
        return !negative && identifier &&
               (token.text == "true" || token.text == "True" ||
                token.text == "t" || token.text == "false" ||
                token.text == "False" || token.text == "f");
      case FieldDescriptor::CPPTYPE_ENUM:
        return !negative && identifier &&
               field.enum_type()->FindValueByName(token.text) != nullptr;
      case FieldDescriptor::CPPTYPE_STRING:
        return !negative && token.type == Tokenizer::TYPE_STRING;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        break;
    }
    return false;
  }

  bool IsInteger(uint64_t max, bool is_signed, bool negative) {
    uint64_t value = 0;
    return current().type == Tokenizer::TYPE_INTEGER &&
           (is_signed || !negative) &&
           Tokenizer::ParseInteger(current().text, max + (negative ? 1 : 0),
                                   &value);
  }

  CheckedText checked_;
  // Elements so far of a repeated field, by path.
  std::map<std::string, size_t> elements_;
  google::protobuf::io::ArrayInputStream input_;
  Tokenizer tokenizer_;
};

}  // namespace

CheckedText CheckText(std::string_view text, const Descriptor& root,
                      const std::string& prefix) {
  return Checker(text).Check(root, prefix);
}

std::string ExpectedValue(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return "an integer from -2147483648 to 2147483647";
    case FieldDescriptor::CPPTYPE_INT64:
      return "an integer within 64 bits";
    case FieldDescriptor::CPPTYPE_UINT32:
      return "an integer from 0 to 4294967295";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "an integer from 0 to 18446744073709551615";
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "a number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "a string in quotes";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return fmt::format("{{ the fields of a {} }}",
                         field.message_type()->full_name());
    case FieldDescriptor::CPPTYPE_ENUM:
      break;
  }
  return fmt::format("one of {}",
                     fmt::join(EnumNames(*field.enum_type()), ", "));
}

std::string UnknownField(std::string_view name, const Descriptor& type) {
  std::vector<std::string> valid;
  for (int i = 0; i < type.field_count(); ++i) {
    valid.push_back(type.field(i)->name());
  }
  const std::string unknown = fmt::format(
      "unknown field {} in {}", Quoted(std::string(name)), type.full_name());
  const std::string nearest = NearestName(name, valid);
  if (!nearest.empty()) {
    return fmt::format("{}; did you mean '{}'?", unknown, nearest);
  }
  return fmt::format("{}; expected {}{}", unknown,
                     valid.size() == 1 ? "" : "one of ",
                     fmt::join(valid, ", "));
}

}  // namespace trireme
