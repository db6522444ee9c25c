"""Start a server we did not write, `transformers serve`, on a vision-language model of random weights.

    python tests/wire_server.py FOLDER PORT

The model (75 000 parameters) is made in FOLDER/tiny-llava within a second and
answers garbage; the protocol, decoding of images included, is the real one.
Its tokeniser has one token for each byte, so prompts can be counted by hand.
"""

import os
import sys
from pathlib import Path

MODEL = "tiny-llava"
SIDE, PATCH = 224, 14
TOKENS_PER_IMAGE = (SIDE // PATCH) ** 2
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: "
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}{{ '\\n' }}"
    "{% endfor %}assistant: "
)


def make_model(folder: Path) -> None:
    import torch
    import transformers as t
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE({byte: number for number, byte in enumerate(bytes_)}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.decoder = decoders.ByteLevel()
    tokenizer = t.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token="<s>", eos_token="</s>", pad_token="<pad>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    pictures = t.CLIPImageProcessorPil(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )
    t.LlavaProcessor(
        pictures, tokenizer, patch_size=PATCH, num_additional_image_tokens=1,
        vision_feature_select_strategy="default", chat_template=TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip

    small = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_range": 0.5,
    }  # large, so that pictures tell in the answer
    torch.manual_seed(0)
    model = t.LlavaForConditionalGeneration(
        t.LlavaConfig(
            vision_config=t.CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, **small),
            text_config=t.LlamaConfig(
                vocab_size=len(tokenizer),
                max_position_embeddings=2**16,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **small,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
            image_seq_length=TOKENS_PER_IMAGE,
        )
    )
    model.save_pretrained(folder)


def main(folder: str, port: str) -> None:
    # Only an accelerator of image loading here, and one that must fit torch exactly: do without.
    sys.modules["torchvision"] = None
    os.chdir(folder)  # so that the model's name is not a path of this machine
    make_model(Path(MODEL))
    from transformers.cli.transformers import main as transformers

    sys.argv = ["transformers", "serve", MODEL, "--host", "127.0.0.1", "--port", port, "--device", "cpu"]
    transformers()


if __name__ == "__main__":
    main(*sys.argv[1:])
