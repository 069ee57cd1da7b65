// What fuzz targets share: a parser that reads files is given one that holds
// the input.

#ifndef TRIREME_TESTS_FUZZ_INPUT_H_
#define TRIREME_TESTS_FUZZ_INPUT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace trireme {

inline std::string_view TextOf(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// Takes the first byte off, as the choice of one of `choices`; 0 of nothing.
inline int TakeChoice(std::string_view& input, int choices) {
  if (input.empty()) return 0;
  const int choice = static_cast<uint8_t>(input.front()) % choices;
  input.remove_prefix(1);
  return choice;
}

// A folder of this process, which goes with it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  const std::string& path() const { return path_; }
  // Writes the file, which may lie in folders of its own, and returns its path.
  std::string Write(const std::string& name, std::string_view content) const;

 private:
  std::string path_;
};

}  // namespace trireme

#endif  // TRIREME_TESTS_FUZZ_INPUT_H_
