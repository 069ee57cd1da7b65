import unittest

from tools.lint import layering


def lines(path, text):
    return [number for number, _ in layering.violations(path, text)]


class LayeringTest(unittest.TestCase):

    def test_lower_floors_and_the_own_folder_are_allowed(self):
        self.assertEqual(
            lines("parallel/linear.cc", '#include "parallel/linear.h"\n'
                  '#include "runtime/core/tensor.h"\n'
                  '#include "scheduler/plan/plan.pb.h"\n'
                  "#include <vector>\n"), [])

    def test_higher_floors_are_violations_with_their_line(self):
        self.assertEqual(
            lines("runtime/ops/matmul.h", "#include <vector>\n"
                  '#include "parallel/linear.h"\n'
                  '  #  include "trainer/job/job.h"\n'), [2, 3])

    def test_neighbours_on_one_floor_do_not_know_each_other(self):
        self.assertEqual(lines("moe/gate.cc", '#include "offload/unit.h"'), [1])
        self.assertEqual(lines("offload/unit.cc", '#include "moe/gate.h"'), [1])

    def test_tests_see_every_floor_but_no_floor_sees_tests(self):
        self.assertEqual(lines("tests/parity_test.cc",
                               '#include "trainer/job/job.h"'), [])
        self.assertEqual(lines("tools/verify.cc",
                               '#include "tests/harness.h"'), [1])

    def test_mpi_is_confined(self):
        text = "#include <mpi.h>"
        self.assertEqual(lines("runtime/comm/mpi/world.cc", text), [])
        self.assertEqual(lines("tests/mpi_main.cc", text), [])
        self.assertEqual(lines("runtime/comm/communicator.h", text), [1])
        self.assertEqual(lines("tests/parity_test.cc", text), [1])

    def test_onednn_is_confined(self):
        for text in ('#include "dnnl.hpp"', "#include <oneapi/dnnl/dnnl.h>"):
            self.assertEqual(lines("runtime/ops/cpu/matmul.cc", text), [])
            self.assertEqual(lines("runtime/ops/matmul.h", text), [1])
            self.assertEqual(lines("models/dit.cc", text), [1])

    def test_cuda_is_confined(self):
        for text in ("#include <cuda_runtime_api.h>", "#include <nccl.h>",
                     "#include <cublasLt.h>"):
            self.assertEqual(lines("runtime/device/cuda/stream.cc", text), [])
            self.assertEqual(lines("runtime/ops/matmul.h", text), [1])
            self.assertEqual(lines("trainer/train.cc", text), [1])

    def test_kernels_are_written_for_both_compilers(self):
        for text in ("Kernel<<<1, 32>>>(x);", "__shared__ float x;",
                     'asm("mov.u32 %0, %laneid;");'):
            self.assertEqual(lines("runtime/ops/cuda/norm.cu", text), [1])

    def test_elements_are_touched_by_kernels_and_messages_only(self):
        for text in ("float* x = tensor.raw_data();", "HostView<int>(x)[0] = 1;",
                     "const T* x = tensor.data<T>();"):
            self.assertEqual(lines("runtime/ops/copy.cc", text), [])
            self.assertEqual(lines("runtime/comm/single.cc", text), [])
            self.assertEqual(lines("parallel/layers_test.cc", text), [])
            self.assertEqual(lines("parallel/layers/layers.cc", text), [1])
            self.assertEqual(lines("parallel/sharding/stored_tensors.cc", text), [1])
            self.assertEqual(lines("runtime/autograd/tape.cc", text), [1])
        self.assertEqual(lines("parallel/layers/layers.cc", "// Not raw_data."), [])

    def test_what_serves_all_families_names_none(self):
        for text in ('#include "models/swin/swin_config.h"',
                     "if (job.model().has_swin()) return 2;",
                     "found.described.model.mutable_shape_vae();"):
            for path in ("trainer/run/prepare.cc", "tools/launch_command.cc",
                         "parallel/layers/layers.h"):
                self.assertIn(1, lines(path, text))
            self.assertEqual(lines("models/resolve.cc", text), [])
            self.assertEqual(lines("tools/bench/training_step.cc", text), [])
            self.assertEqual(lines("trainer/train_test.cc", text), [])
        for header in ("models/family.h", "models/shape/mesh.h",
                       "models/mesh_tokens/mesh_tokens.h"):
            self.assertEqual(
                lines("trainer/job/job.cc", f'#include "{header}"'), [])

    def test_scheduler_uses_of_runtime_its_core_only(self):
        for header in ("runtime/device/tensor.h", "runtime/comm/communicator.h",
                       "runtime/telemetry/progress.h"):
            text = f'#include "{header}"'
            self.assertEqual(lines("scheduler/program/compile.cc", text), [1])
            self.assertEqual(lines("scheduler/search/search.cc", text), [1])
            self.assertEqual(lines("parallel/executor/executor.cc", text), [])
        self.assertEqual(lines("scheduler/program/compile.cc",
                               '#include "runtime/core/status.h"'), [])

    def test_runtime_is_free_of_protobuf(self):
        for header in ("google/protobuf/message.h", "scheduler/plan/plan.pb.h"):
            text = f'#include "{header}"'
            self.assertNotEqual(lines("runtime/core/status.h", text), [])
            self.assertEqual(lines("scheduler/plan/plan.cc", text), [])


if __name__ == "__main__":
    unittest.main()
