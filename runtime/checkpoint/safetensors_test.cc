#include "runtime/checkpoint/safetensors.h"

#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "fmt/format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"
#include "runtime/device/cpu_device.h"
#include "runtime/device/host.h"

namespace trireme {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGolden[] = "runtime/checkpoint/testdata/golden.safetensors";
constexpr int64_t kMaxBytes = 1 << 20;

class SafetensorsTest : public ::testing::Test {
 protected:
  SafetensorsTest()
      : folder_(testing::TempDir() + "/safetensors_test"),
        path_(folder_ + "/x.safetensors") {
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  ~SafetensorsTest() override { fs::remove_all(folder_); }

  void WriteRaw(uint64_t header_bytes, std::string_view rest) {
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &header_bytes, 8);
    bytes += rest;
    ASSERT_TRUE(WriteFileAtomically(path_, bytes).ok());
  }

  // The error of opening a file of this header and data; "" if there is none.
  std::string OpenError(const std::string& header, int64_t data_bytes) {
    WriteRaw(header.size(), header + std::string(data_bytes, 'x'));
    const absl::Status status = SafetensorsFile::Open(path_).status();
    if (status.ok()) return "";
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(MessageOf(status), HasSubstr(path_));
    return MessageOf(status);
  }

  CpuDevice device_{1 << 20};
  std::string folder_;
  std::string path_;
};

TEST_F(SafetensorsTest, ReadsWhatTheReferenceImplementationWrote) {
  const auto opened = SafetensorsFile::Open(kGolden);
  ASSERT_TRUE(opened.ok()) << opened.status();
  const SafetensorsFile& file = **opened;
  EXPECT_EQ(file.tensors().size(), 9u);
  EXPECT_EQ(file.metadata(),
            (std::map<std::string, std::string>{{"format", "pt"}}));

  const auto read = [&](const std::string& name) {
    return ReadTensor(file, name, device_).value();
  };
  EXPECT_EQ(read("blocks.1.weight").shape(), (Shape{2, 3}));
  EXPECT_THAT(read("blocks.1.weight").ToVector<float>(),
              ElementsAre(0, 1, 2, 3, 4, -5.5f));
  EXPECT_THAT(read("blocks.0.weight").ToVector<float>(),
              ElementsAre(0.25f, -1));
  EXPECT_EQ(read("half").shape(), (Shape{1, 3}));
  const std::vector<BFloat16> half = read("half").ToVector<BFloat16>();
  EXPECT_EQ(static_cast<float>(half[0]), 1.0f);
  EXPECT_EQ(static_cast<float>(half[1]), -2.0f);
  EXPECT_EQ(static_cast<float>(half[2]), 0.5f);
  EXPECT_THAT(read("ids").ToVector<int64_t>(),
              ElementsAre(-1, int64_t{1} << 40));
  EXPECT_EQ(read("double").rank(), 0);
  EXPECT_THAT(read("double").ToVector<double>(), ElementsAre(0.1));
  EXPECT_THAT(read("index").ToVector<int32_t>(), ElementsAre(-7));
  EXPECT_EQ(read("bytes").shape(), (Shape{2, 1}));
  EXPECT_THAT(read("bytes").ToVector<uint8_t>(), ElementsAre(0, 255));
  const Tensor mask = read("mask");
  EXPECT_THAT(HostView<bool>(mask), ElementsAre(true, false, true));
  EXPECT_EQ(read("none").shape(), (Shape{0, 4}));
}

TEST_F(SafetensorsTest, WritesTheReferenceImplementationsBytes) {
  const auto golden = SafetensorsFile::Open(kGolden);
  ASSERT_TRUE(golden.ok());
  std::vector<SafetensorsEntry> entries;
  for (const auto& [name, entry] : (*golden)->tensors()) {
    entries.push_back({name, entry.dtype, entry.shape});
  }
  auto writer =
      SafetensorsWriter::Create(path_, entries, (*golden)->metadata()).value();
  for (const SafetensorsEntry& entry : writer->entries()) {
    // In two pieces.
    const auto data = (*golden)->Data(entry.name).value();
    const size_t half = data.size() / 2;
    for (const auto piece : {data.first(half), data.subspan(half)}) {
      ASSERT_TRUE(writer
                      ->Append(entry.name, piece.data(),
                               static_cast<int64_t>(piece.size()))
                      .ok());
    }
  }
  EXPECT_FALSE(fs::exists(path_)) << "the name is for the whole file only";
  const auto written = writer->Commit();
  ASSERT_TRUE(written.ok());
  const std::string bytes = ReadFile(path_, kMaxBytes).value();
  EXPECT_EQ(bytes, ReadFile(kGolden, kMaxBytes).value());
  Checksum checksum;
  checksum.Update(bytes);
  EXPECT_EQ(*written, checksum.Result());
}

// A name must not be able to write to a terminal.
TEST_F(SafetensorsTest, AHostileNameIsEscapedInErrors) {
  EXPECT_THAT(OpenError(R"({"a\u001b[2Jb":{"dtype":"F7","shape":[1],)"
                        R"("data_offsets":[0,4]}})",
                        4),
              HasSubstr("tensor 'a\\033[2Jb'"));
}

TEST_F(SafetensorsTest, AFileWithoutTensorsIsAFile) {
  ASSERT_TRUE(SafetensorsWriter::Create(path_, {}, {}).value()->Commit().ok());
  const auto file = SafetensorsFile::Open(path_);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->tensors().empty());
}

TEST_F(SafetensorsTest, AnAbandonedWriterLeavesNothing) {
  { ASSERT_TRUE(SafetensorsWriter::Create(path_, {}, {}).ok()); }
  EXPECT_TRUE(fs::is_empty(folder_));
}

TEST_F(SafetensorsTest, RefusesToWriteWhatNobodyCouldRead) {
  const auto error = [&](const std::vector<std::string>& names) {
    std::vector<SafetensorsEntry> entries;
    for (const std::string& name : names) {
      entries.push_back({name, DType::kFloat32, {1}});
    }
    return MessageOf(SafetensorsWriter::Create(path_, entries, {}).status());
  };
  EXPECT_THAT(error({"a", "b", "a"}), HasSubstr("'a' is taken"));
  EXPECT_THAT(error({"__metadata__"}), HasSubstr("is taken"));
  EXPECT_THAT(error({"\xff"}), HasSubstr("UTF-8"));
  EXPECT_THAT(
      MessageOf(SafetensorsWriter::Create(folder_ + "/no/x", {}, {}).status()),
      HasSubstr("/no/x"));
}

TEST_F(SafetensorsTest, AMissingTensorsErrorNamesTheNearestOne) {
  const auto file = SafetensorsFile::Open(kGolden).value();
  const absl::Status status =
      ReadTensor(*file, "blocks.1.wieght", device_).status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(MessageOf(status), HasSubstr(kGolden));
  EXPECT_THAT(MessageOf(status), HasSubstr("'blocks.1.wieght'"));
  EXPECT_THAT(MessageOf(status), HasSubstr("'blocks.1.weight'"));
}

TEST_F(SafetensorsTest, ADryDeviceCountsWithoutReading) {
  CpuDevice dry(1 << 20, CpuDevice::Mode::kDry);
  const auto file = SafetensorsFile::Open(kGolden).value();
  const auto tensor = ReadTensor(*file, "blocks.1.weight", dry);
  ASSERT_TRUE(tensor.ok());
  EXPECT_EQ(tensor->shape(), (Shape{2, 3}));
  EXPECT_EQ(tensor->raw_data(), nullptr);
  EXPECT_EQ(
      dry.Statistics()
          .current_by_category[static_cast<int>(MemoryCategory::kParameters)],
      Device::kAlignment);
}

TEST_F(SafetensorsTest, RefusesFilesThatAreNone) {
  EXPECT_TRUE(
      absl::IsNotFound(SafetensorsFile::Open(folder_ + "/missing").status()));
  EXPECT_THAT(MessageOf(SafetensorsFile::Open(folder_).status()),
              HasSubstr("no regular file"));
  const std::string fifo = folder_ + "/fifo";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_FALSE(SafetensorsFile::Open(fifo).ok());
  for (const std::string bytes : {"", "1234567"}) {
    ASSERT_TRUE(WriteFileAtomically(path_, bytes).ok());
    EXPECT_TRUE(absl::IsDataLoss(SafetensorsFile::Open(path_).status()));
  }
  // Lengths beyond the file, beyond the limit, and beyond int64.
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{100'000'001}, UINT64_MAX, uint64_t{1} << 63}) {
    WriteRaw(length, "{}");
    EXPECT_THAT(MessageOf(SafetensorsFile::Open(path_).status()),
                HasSubstr(fmt::format("header of {} bytes", length)));
  }
}

// One tensor that is as it should be, and what breaks it.
std::string Header(const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return fmt::format(R"({{"w":{{"dtype":{},"shape":{},"data_offsets":{}}}}})",
                     dtype, shape, offsets);
}

TEST_F(SafetensorsTest, RefusesHeadersThatAreNoHeader) {
  ASSERT_EQ(OpenError(Header(R"("F32")", "[2]", "[0,8]"), 8), "");
  for (const char* text :
       {"", "{", "[]", "null", "{}}", "\xff\xfe", R"({"w":1})", R"({"w":null})",
        R"({"w":[]})", R"({"w":{}})", R"({"__metadata__":1})",
        R"({"__metadata__":{"a":1}})",
        R"({"w":{"dtype":"F32","shape":[0]}})"}) {
    EXPECT_NE(OpenError(text, 0), "") << text;
  }
}

TEST_F(SafetensorsTest, RefusesImpossibleTensors) {
  EXPECT_THAT(
      OpenError(Header(R"("F7")", "[2]", "[0,8]"), 8),
      HasSubstr(
          "tensor 'w': found dtype 'F7', expected one of BOOL, U8, BF16, F16, "
          "I32, F32, F64, I64"));
  EXPECT_NE(OpenError(Header("5", "[2]", "[0,8]"), 8), "");
  for (const char* shape :
       {"[-2]", "[2.0]", R"(["2"])", "[null]", "[1e3]", "2", "{}",
        "[18446744073709551615]", "[9223372036854775807]",
        "[4611686018427387904,2]", "[4294967296,4294967296]",
        "[4294967296,4294967296,0]", "[1,1,1,1,1,1,1,1,2]"}) {
    EXPECT_NE(OpenError(Header(R"("F32")", shape, "[0,8]"), 8), "") << shape;
  }
  for (const char* offsets :
       {"[0,4]", "[0,9]", "[8,0]", "[-8,0]", "[0]", "[0,8,8]", "[0.0,8.0]",
        "[8,16]", "[9223372036854775800,9223372036854775808]",
        "[18446744073709551608,18446744073709551616]", "8"}) {
    EXPECT_NE(OpenError(Header(R"("F32")", "[2]", offsets), 8), "") << offsets;
  }
}

TEST_F(SafetensorsTest, RefusesHolesOverlapsAndLeftovers) {
  const auto two = [](int a, int b) {
    return fmt::format(
        R"({{"a":{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}},)"
        R"("b":{{"dtype":"U8","shape":[4],"data_offsets":[{},{}]}}}})",
        a, a + 4, b, b + 4);
  };
  EXPECT_EQ(OpenError(two(0, 4), 8), "");
  EXPECT_EQ(OpenError(two(4, 0), 8), "");
  EXPECT_THAT(OpenError(two(0, 5), 9), HasSubstr("no tensor"));
  EXPECT_THAT(OpenError(two(1, 5), 9), HasSubstr("no tensor"));
  EXPECT_THAT(OpenError(two(0, 3), 7), HasSubstr("two tensors"));
  EXPECT_THAT(OpenError(two(0, 0), 4), HasSubstr("two tensors"));
  EXPECT_THAT(OpenError(two(0, 4), 9), HasSubstr("expected 8"));
  EXPECT_NE(OpenError(two(0, 4), 7), "");
}

TEST_F(SafetensorsTest, RefusesANameThatComesTwice) {
  const std::string w = R"("w":{"dtype":"U8","shape":[1],)"
                        R"("data_offsets":[0,1]})";
  EXPECT_THAT(OpenError("{" + w + "," + w + "}", 1),
              HasSubstr("'w' comes twice"));
  EXPECT_THAT(OpenError(R"({"w":{"dtype":"U8","dtype":"BOOL","shape":[1],)"
                        R"("data_offsets":[0,1]}})",
                        1),
              HasSubstr("'dtype' comes twice"));
  EXPECT_THAT(OpenError(R"({"__metadata__":{},"__metadata__":{}})", 0),
              HasSubstr("comes twice"));
}

// A recursive reader would run out of stack.
TEST_F(SafetensorsTest, RefusesDeepNesting) {
  const int depth = 200'000;
  const std::string arrays =
      std::string(depth, '[') + "2" + std::string(depth, ']');
  EXPECT_THAT(OpenError(Header(R"("F32")", arrays, "[0,8]"), 8),
              HasSubstr("nests deeper"));
  EXPECT_NE(OpenError(std::string(depth, '['), 0), "");
  std::string nested;
  for (int i = 0; i < 1000; ++i) nested += R"({"a":)";
  nested += "1" + std::string(1000, '}');
  EXPECT_THAT(OpenError(nested, 0), HasSubstr("nests deeper"));
}

TEST_F(SafetensorsTest, ErrorsStayShort) {
  const std::string name(100'000, 'n');
  EXPECT_LT(OpenError(fmt::format(R"({{"{}":5}})", name), 0).size(), 1000u);
  EXPECT_LT(
      OpenError(Header(fmt::format("\"{}\"", name), "[2]", "[0,8]"), 8).size(),
      1000u);
}

TEST_F(SafetensorsTest, RefusesABoolThatIsNeither) {
  const std::string header = Header(R"("BOOL")", "[2]", "[0,2]");
  WriteRaw(header.size(), header + std::string("\1\2", 2));
  const auto file = SafetensorsFile::Open(path_).value();
  EXPECT_THAT(MessageOf(ReadTensor(*file, "w", device_).status()),
              HasSubstr("neither 0 nor 1"));
}

// Whatever one changed byte makes of the header, opening it ends well: an
// error, or tensors that lie within the file.
TEST_F(SafetensorsTest, NoChangedByteIsBelievedBeyondTheFile) {
  const std::string golden = ReadFile(kGolden, kMaxBytes).value();
  uint64_t header_bytes;
  std::memcpy(&header_bytes, golden.data(), 8);
  int64_t refused = 0;
  std::fstream out(
      path_, std::ios::binary | std::ios::in | std::ios::out | std::ios::trunc);
  out << golden;
  const auto put = [&](size_t i, char value) {
    out.seekp(static_cast<std::streamoff>(i));
    out.put(value);
    out.flush();
    ASSERT_TRUE(out.good());
  };
  for (size_t i = 0; i < 8 + header_bytes; ++i) {
    for (const char changed : {'\0', '9', '"', static_cast<char>(~golden[i])}) {
      put(i, changed);
      const auto file = SafetensorsFile::Open(path_);
      if (!file.ok()) {
        ++refused;
        continue;
      }
      for (const auto& [name, entry] : (*file)->tensors()) {
        ASSERT_GE(entry.offset, 8);
        ASSERT_LE(entry.offset + entry.bytes,
                  static_cast<int64_t>(golden.size()));
        ASSERT_EQ(entry.bytes,
                  entry.shape.num_elements() * DTypeSize(entry.dtype));
      }
    }
    put(i, golden[i]);
  }
  EXPECT_GT(refused, static_cast<int64_t>(header_bytes));
}

// Every shorter file is refused: a download that broke off is seen at once.
TEST_F(SafetensorsTest, RefusesEveryTruncation) {
  const std::string golden = ReadFile(kGolden, kMaxBytes).value();
  fs::copy_file(kGolden, path_);
  fs::permissions(path_, fs::perms::owner_all);
  for (size_t size = golden.size(); size-- > 0;) {
    fs::resize_file(path_, size);
    EXPECT_FALSE(SafetensorsFile::Open(path_).ok()) << size;
  }
}

}  // namespace
}  // namespace trireme
